//! One question to the policies, and what of it belongs into the record: what was asked, what a set that is not enforced
//! refused, what the shadow set says.
//!
//! Every decision of the request path is put through [`put`]. The shadow set is asked after the set in force and with
//! the same facts, under its own role table and with a memo of its own; what it says goes into record and metrics and
//! nowhere else: it can neither make a permit nor refuse.
//!
//! It is asked for the decisions that a record tells of, so that each flip can be explained. It is not asked when an open
//! stream is looked at again: the request that opened it was asked, and five looks a second would count one stream as
//! thousands of flips. Nor for work in the background (alerts, webhooks, making and handing out export files), which no user asks for
//! and which has no record of its own: `policy replay` over the requests behind it tells of that.

use std::sync::Arc;

use super::{session, session::PartnerUser, session::Session, standing::Manner, worker::Worker};
use crate::{
    audit::{
        Asked, Decision, Slice,
        asked::{Other, Shadow},
    },
    domain::{Facts, LinkFacts, UserFacts},
    policy::{self, Bundle, Outcome, Refusal},
};

/// What the policies were asked for one record, and said.
#[derive(Debug, Default)]
pub struct Said {
    /// The set that was asked; `None`: none was.
    pub bundle: Option<Arc<Bundle>>,
    manner: Manner,
    allowed: bool,
    pub waived: Vec<Other>,
    pub shadow: Option<Box<Shadow>>,
}

impl Said {
    /// The caller's own gate was asked, for all tenants at once.
    pub fn of_caller(bundle: &Arc<Bundle>, class: &'static str) -> Self {
        let manner = Manner { caller_only: true, class, ..Manner::default() };
        Self { bundle: Some(Arc::clone(bundle)), manner, ..Self::default() }
    }

    /// `None`: they were not asked.
    pub fn manner(&self) -> Option<Manner> {
        self.bundle.as_ref().map(|_| self.manner)
    }

    /// For the record; the link only where one was asked about, not many.
    pub fn asked<'a>(&'a self, user: &'a PartnerUser, link: Option<&'a LinkFacts>) -> Option<Asked<'a>> {
        self.manner().map(|Manner { switch_context, caller_only, class }| Asked {
            holds: &user.holds,
            user_suspended: user.facts.suspended,
            switch_context,
            caller_only,
            class,
            allowed: self.allowed,
            link: link.filter(|_| switch_context),
        })
    }

    /// Many tenants were asked about and these are left: of the others nothing is recorded. The counters have them.
    pub fn narrow(&mut self, slices: &[Slice]) {
        let is_left = |other: &Other| {
            let about = other.managed_tenant_id.as_deref();
            about.is_none_or(|tenant| slices.iter().any(|slice| slice.managed_tenant_id == tenant))
        };
        self.waived.retain(is_left);
        if let Some(shadow) = &mut self.shadow {
            shadow.differs.retain(is_left);
        }
    }

    fn note(&mut self, bundle: &Arc<Bundle>, facts: &Facts<'_>, class: &'static str, outcome: &Outcome) {
        if self.bundle.is_none() {
            self.bundle = Some(Arc::clone(bundle));
        }
        (self.manner.switch_context, self.manner.class) = (facts.switch_context, class);
        self.allowed = outcome.verdict.is_ok();
        if let Some(denial) = outcome.waived {
            self.waived.push(Other {
                managed_tenant_id: slice_of(facts),
                decision: Decision::Deny,
                reason: Some(denial.word().to_owned()),
                policies: outcome.policies.to_vec(),
            });
        }
    }
}

/// A decision about one of many tenants names it; about the record's own it need not.
fn slice_of(facts: &Facts<'_>) -> Option<String> {
    let link = facts.link.filter(|_| !facts.switch_context)?;
    Some(link.link.tenant_id.as_str().to_owned())
}

/// Decides. `said` is `None` where nothing is recorded of it: asked again of a stream, or about a further permission.
pub fn put(
    worker: &Worker,
    bundle: &Arc<Bundle>,
    session: &Session,
    (facts, class): (&Facts<'_>, &'static str),
    said: Option<&mut Said>,
) -> Outcome {
    let outcome = policy::decide(bundle, Some(&mut worker.memo.borrow_mut()), facts);
    let Some(said) = said else { return outcome };
    said.note(bundle, facts, class, &outcome);
    if outcome.waived.is_some() {
        worker.gateway.metrics.shadow.waived.inc();
    }
    if let Some(shadow) = &worker.gateway.shadow
        && let Some(set) = shadow.current()
    {
        ask_shadow(worker, &set, session, facts, &outcome, said);
    }
    outcome
}

fn ask_shadow(worker: &Worker, set: &Bundle, session: &Session, facts: &Facts<'_>, live: &Outcome, said: &mut Said) {
    let metrics = &worker.gateway.metrics.shadow;
    // What the token grants is the role table's word, and the shadow set has its own.
    let user = UserFacts { holds: session::held(&session.caller, set.roles()), ..facts.user.clone() };
    let facts = Facts { user: &user, ..*facts };
    let verdict = policy::judge(set, Some(&mut worker.shadow_memo.borrow_mut()), &facts);
    let record =
        said.shadow.get_or_insert_with(|| Box::new(Shadow { version: set.version().to_owned(), ..Shadow::default() }));
    if verdict.result == Err(Refusal::Unavailable) {
        metrics.errors.inc();
    }
    // As if the set in force were enforced: what was only let through is no agreement.
    let live_allows = live.verdict.is_ok() && live.waived.is_none();
    if verdict.is_allow() == live_allows {
        metrics.agreed.inc();
        return;
    }
    metrics.flip(&verdict, live);
    record.differs.push(Other {
        managed_tenant_id: slice_of(&facts),
        decision: if verdict.is_allow() { Decision::Allow } else { Decision::Deny },
        reason: verdict.word().map(str::to_owned),
        policies: verdict.policies.to_vec(),
    });
}
