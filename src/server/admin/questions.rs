//! Policies asked and told, as `linkgate policy`, `decide` and `explain` do: what a link or role amounts to as text, whether
//! the configured folder is sound as it lies there, what-if questions, and why something was decided.
//!
//! Asked is the set in force; `check` and `test` read the configured folder, which the next reload would read too. No call
//! names a folder or a file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    answer::{Answer, trouble},
    ask::{Ask, Input, invalid},
    desk::Desk,
    insight::{instant, named_record},
    reviews::set_name,
    table::Operation,
};
use crate::{
    domain::{LinkId, LinkRole, Millis},
    ops::{
        Trouble, aside,
        explain::{Asked, Seen, Viewer},
        policy::{
            check,
            decide::{Decided, answer},
            show,
        },
    },
    policy::{WhatIf, suite},
    portal::Problem,
};

/// Most questions of one call; `linkgate decide` takes any number.
const MOST_QUESTIONS: usize = 1_000;
pub(super) const VIEWERS: [&str; 3] = ["operator", "caller", "tenant"];

/// What-if questions.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DecideBody {
    /// Required; at most 1,000.
    #[schemars(with = "Option<Vec<WhatIf<'static>>>")]
    questions: Option<Vec<Map<String, Value>>>,
}

/// A made-up request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExplainBody {
    /// Required.
    #[schemars(with = "Option<WhatIf<'static>>")]
    request: Option<Map<String, Value>>,
    /// Through this link as it stands now, instead of the request's own `link`: suspensions, the states of partner and
    /// tenant, and the links that it hangs on count as in a real request.
    link_id: Option<LinkId>,
    /// With `link_id`: by the user whose tokens say this; their account and suspensions count too.
    sub: Option<String>,
    /// Of the tokens; goes with `sub`. Left out: the legacy issuer.
    issuer: Option<String>,
}

impl Input for DecideBody {}
impl Input for ExplainBody {}

/// Answers in the order of the questions, by one set.
#[derive(Serialize, JsonSchema)]
pub(super) struct Decisions {
    policy_version: String,
    decisions: Vec<Decided>,
}

pub(super) async fn run(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    match ask.spec.operation {
        Operation::LinkPolicy | Operation::RolePolicy => text(desk, ask).await,
        Operation::CheckPolicies => {
            ask.no_query()?;
            let (dir, name) = (desk.gateway.settings.policy.dir.clone(), set_name(desk));
            let report = aside(move || Ok(check::Report::of(dir.as_deref(), name).0)).await;
            Answer::ok(&report.map_err(|error| trouble(ask, error))?)
        }
        Operation::TestPolicies => test(desk, ask).await,
        Operation::Decide => decide(desk, ask).await,
        Operation::Explain => explain(desk, ask).await,
        _ => explain_record(desk, ask).await,
    }
}

async fn text(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let mut params = ask.params();
    let at = instant(&mut params, "at").unwrap_or_else(Millis::now);
    params.finish()?;
    let (bundle, name) = (desk.gateway.policies.current(), set_name(desk));
    let facts = match ask.spec.operation {
        Operation::LinkPolicy => {
            Ok(desk.admin.standing(ask.link()?).await.map_err(|error| trouble(ask, error.into()))?)
        }
        _ => Err(ask.param.parse::<LinkRole>().map_err(|_| ask.unknown())?),
    };
    let report = aside(move || match facts {
        Ok(facts) => Ok(show::Report::of_link(&bundle, name, &facts, at)),
        Err(role) => show::Report::of_role(&bundle, name, role, at),
    });
    Answer::ok(&report.await.map_err(|error| trouble(ask, error))?)
}

async fn test(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let mut params = ask.params();
    let only = params.text("only").map(std::borrow::Cow::into_owned);
    params.finish()?;
    let dir = desk.gateway.settings.policy.dir.clone();
    let report = aside(move || {
        suite::run(dir.as_deref(), None, only.as_deref())
            .map_err(|errors| Trouble::Invalid(format!("the policy set or its tests are not valid: {errors}")))
    });
    Answer::ok(&report.await.map_err(|error| trouble(ask, error))?)
}

async fn decide(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    ask.no_query()?;
    let body: DecideBody = ask.input()?;
    let questions = body.questions.ok_or_else(|| invalid("questions", "is required"))?;
    if questions.len() > MOST_QUESTIONS {
        return Err(invalid("questions", format!("must be at most {MOST_QUESTIONS}")));
    }
    let bundle = desk.gateway.policies.current();
    let decided = aside(move || {
        let decisions = questions.iter().map(|question| Ok(answer(&bundle, None, &bytes(question)?).into()));
        let decisions = decisions.collect::<Result<_, Trouble>>()?;
        Ok(Decisions { policy_version: bundle.version().to_owned(), decisions })
    });
    Answer::ok(&decided.await.map_err(|error| trouble(ask, error))?)
}

fn bytes(question: &Map<String, Value>) -> Result<Vec<u8>, Trouble> {
    serde_json::to_vec(question).map_err(|error| Trouble::Internal(error.to_string()))
}

async fn explain(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let viewer = viewer(ask)?;
    let ExplainBody { request, link_id, sub, issuer } = ask.input()?;
    let mut request = request.ok_or_else(|| invalid("request", "is required"))?;
    if link_id.is_some() && request.get("link").is_some_and(|link| !link.is_null()) {
        return Err(invalid("link_id", "takes the place of the request's `link`: give one of them"));
    }
    if sub.is_some() && link_id.is_none() {
        return Err(invalid("sub", "goes with `link_id`"));
    }
    if issuer.is_some() && sub.is_none() {
        return Err(invalid("issuer", "goes with `sub`"));
    }
    if let Some(sub) = &sub
        && let Value::Object(user) = request.entry("user").or_insert_with(|| json!({}))
    {
        // Rules may ask who it is.
        let issuer = issuer.as_deref().unwrap_or_default();
        let before = [user.insert("sub".into(), json!(sub)), user.insert("issuer".into(), json!(issuer))];
        if before.iter().any(Option::is_some) {
            return Err(invalid("sub", "stands in the request's `user` too: name the user once"));
        }
    }
    let bundle = desk.gateway.policies.current();
    let asked = bytes(&request).and_then(|bytes| Asked::read(&bundle, &bytes));
    let mut asked = asked.map_err(|error| trouble(ask, error))?;
    if let Some(id) = link_id {
        let user = sub.as_deref().map(|sub| (issuer.as_deref().unwrap_or_default(), sub));
        asked = asked.through(&desk.admin, id, user).await.map_err(|error| match error {
            Trouble::Store(crate::store::StoreError::NotFound { what: "link", .. }) => {
                invalid("link_id", "there is no such link")
            }
            error => trouble(ask, error),
        })?;
    }
    let seen = aside(move || {
        let other = || Trouble::Invalid("the request is not about this tenant".to_owned());
        Seen::of_asked(&asked, &bundle, &viewer).ok_or_else(other)
    });
    Answer::ok(&seen.await.map_err(|error| trouble(ask, error))?)
}

async fn explain_record(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let viewer = viewer(ask)?;
    let (record, bundle) = (named_record(desk, ask).await?, desk.gateway.policies.current());
    let seen = aside(move || Ok(Seen::of_record(record, &bundle, &viewer)));
    // A record of others is as unknown to a tenant as one that does not exist.
    Answer::ok(&seen.await.map_err(|error| trouble(ask, error))?.ok_or_else(|| ask.unknown())?)
}

/// For whom it is explained.
fn viewer(ask: &Ask) -> Result<Viewer, Problem> {
    let mut params = ask.params();
    let [operator, caller, of_tenant] = VIEWERS;
    let word = params.word("as", &[(operator, 0_u8), (caller, 1), (of_tenant, 2)]);
    let tenant = params.text("managed_tenant_id").map(std::borrow::Cow::into_owned);
    let viewer = match (word.unwrap_or(0), tenant) {
        (2, Some(tenant)) => Viewer::Tenant(tenant),
        (2, None) => {
            params.fail("managed_tenant_id", "is required with `as=tenant`");
            Viewer::Caller
        }
        (other, tenant) => {
            if tenant.is_some() {
                params.fail("managed_tenant_id", "goes with `as=tenant`");
            }
            if other == 1 { Viewer::Caller } else { Viewer::Operator }
        }
    };
    params.finish()?;
    Ok(viewer)
}
