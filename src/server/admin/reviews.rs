//! Reviews of access, as `linkgate access` makes them: who could do what, by whose approval, and which rights nobody uses;
//! and the report on a shadow set.
//!
//! By the policies in force, from this gateway's own record, on one thread beside the traffic. Links come in pages, so
//! that one call asks the policies about so many at most.

use std::{borrow::Cow, sync::Arc};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    answer::{Answer, trouble},
    ask::Ask,
    desk::Desk,
    insight::instant,
    table::Operation,
};
use crate::{
    audit::sweep::{Progress, Wanted},
    domain::{Millis, TenantId},
    ops::{
        Trouble, Window,
        access::{
            Desk as Review, Set,
            unused::{self, Question as Unused},
            who::{self, Question as Who, Subject},
        },
        aside,
        policy::shadow::{Report, report},
    },
    portal::{Problem, query::Paging},
    store::Side,
};

const WEEK_MS: i64 = 7 * 86_400_000;
/// Of one page of a review, each once for every link.
const MOST_USERS: usize = 20_000;
/// Of each list of flips.
const MOST_GROUPS: usize = 1_000;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    /// One row for each link and permission.
    Permissions,
    /// One row for each link and user.
    Users,
}

pub(super) const REVIEW_FORMS: [&str; 3] = ["json", "csv", "csv_users"];
pub(super) const UNUSED_FORMS: [&str; 2] = ["json", "csv"];

/// A page of a report: that many links, of all that there are.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub(super) struct Paged<T> {
    #[serde(flatten)]
    report: T,
    total_links: u64,
    limit: u64,
    offset: u64,
    has_more: bool,
}

impl<T> Paged<T> {
    fn of(report: T, total: usize, paging: Paging) -> Self {
        let Paging { limit, offset } = paging;
        let total_links = total as u64;
        Self { report, total_links, limit, offset, has_more: offset.saturating_add(limit) < total_links }
    }
}

/// Nobody watches.
struct Silent;

impl Progress for Silent {
    fn total(&self, _: u64) {}
    fn advance(&self, _: u64) {}
}

pub(super) async fn run(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    match ask.spec.operation {
        Operation::ReviewTenant => review(desk, ask, Subject::Tenant(tenant(ask)?)).await,
        Operation::ReviewPartner => review(desk, ask, Subject::Partner(ask.partner()?)).await,
        Operation::UnusedOfTenant => unused(desk, ask, Side::Tenant(tenant(ask)?)).await,
        Operation::UnusedOfPartner => unused(desk, ask, Side::Partner(ask.partner()?)).await,
        Operation::UnusedOfLink => unused(desk, ask, Side::Link(ask.link()?)).await,
        _ => shadow(desk, ask).await,
    }
}

fn tenant(ask: &Ask) -> Result<TenantId, Problem> {
    TenantId::new(&ask.param).map_err(|_| ask.unknown())
}

async fn review(desk: &Desk, ask: &Ask, subject: Subject) -> Result<Answer, Problem> {
    let mut params = ask.params();
    let paging = params.paging();
    let at = instant(&mut params, "at").unwrap_or_else(Millis::now);
    let token_days = params.integer("token_days", 0..=3_650, 30);
    let [json, csv, users] = REVIEW_FORMS;
    let form = params.word("format", &[(json, Form::Json), (csv, Form::Permissions), (users, Form::Users)]);
    params.finish()?;
    let token_days = u32::try_from(token_days).unwrap_or(u32::MAX);
    let asked = Who { at, token_days, window: window(paging), most_users: MOST_USERS };
    let report = who::report(&subject, asked, &set(desk), &scene(desk)).await.map_err(|error| trouble(ask, error))?;
    let (mut table, total) = (Vec::new(), report.total);
    let written = match form.unwrap_or(Form::Json) {
        Form::Json => {
            return Answer::ok(&Paged::of(report, total, paging));
        }
        Form::Permissions => report.permissions_csv(&mut table),
        Form::Users => report.users_csv(&mut table),
    };
    csv_answer(ask, total, paging, table, written)
}

async fn unused(desk: &Desk, ask: &Ask, side: Side) -> Result<Answer, Problem> {
    let mut params = ask.params();
    let paging = params.paging();
    let days = params.integer("days", 1..=3_650, 90);
    let [json, csv] = UNUSED_FORMS;
    let form = params.word("format", &[(json, Form::Json), (csv, Form::Permissions)]);
    params.finish()?;
    let asked = Unused { side, days: u32::try_from(days).unwrap_or(u32::MAX), window: window(paging) };
    let report = unused::report(&asked, &set(desk), &scene(desk)).await.map_err(|error| trouble(ask, error))?;
    let total = report.total;
    if form == Some(Form::Permissions) {
        let mut table = Vec::new();
        let written = report.csv(&mut table);
        return csv_answer(ask, total, paging, table, written);
    }
    Answer::ok(&Paged::of(report, total, paging))
}

/// The report with its most frequent groups; `policy shadow report` has all.
#[derive(Serialize, JsonSchema)]
pub(super) struct Shadowed {
    #[serde(flatten)]
    report: Report,
    /// Groups that are not shown.
    more_groups: u64,
}

async fn shadow(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let mut params = ask.params();
    let since = instant(&mut params, "since").unwrap_or(Millis(Millis::now().0.saturating_sub(WEEK_MS)));
    let wanted = Wanted {
        since: Some(since),
        until: instant(&mut params, "until"),
        partner_id: params.parsed("partner_id", "a UUID"),
        tenant: params.text("managed_tenant_id").map(Cow::into_owned),
    };
    params.finish()?;
    if desk.gateway.settings.kept_in_database {
        let message = "the journals are kept in the database: they cannot be read here as files";
        return Err(trouble(ask, Trouble::Invalid(message.to_owned())));
    }
    let dir = desk.gateway.settings.audit.dir.clone();
    let found = aside(move || Ok(report(&dir, since, &wanted, 1, &Silent)?)).await;
    let mut report = found.map_err(|error| trouble(ask, error))?;
    let all = report.flips.len() + report.waived_by.len();
    report.flips.truncate(MOST_GROUPS);
    report.waived_by.truncate(MOST_GROUPS);
    let more_groups = (all - report.flips.len() - report.waived_by.len()) as u64;
    Answer::ok(&Shadowed { report, more_groups })
}

fn csv_answer(
    ask: &Ask,
    total: usize,
    paging: Paging,
    table: Vec<u8>,
    written: Result<(), csv::Error>,
) -> Result<Answer, Problem> {
    written.map_err(|error| trouble(ask, Trouble::Internal(error.to_string())))?;
    let page = Paged::of((), total, paging);
    Ok(Answer::csv(table, page.total_links, page.has_more))
}

fn window(paging: Paging) -> Window {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    Window { offset: number(paging.offset), limit: number(paging.limit) }
}

/// The set in force.
pub(super) fn set(desk: &Desk) -> Set {
    Set { bundle: desk.gateway.policies.current(), name: set_name(desk) }
}

/// As the command line names it.
pub(super) fn set_name(desk: &Desk) -> String {
    let dir = desk.gateway.settings.policy.dir.as_ref();
    dir.map_or_else(|| "built-in".to_owned(), |dir| dir.display().to_string())
}

fn scene(desk: &Desk) -> Review {
    Review {
        admin: desk.admin.clone(),
        index: desk.records.clone(),
        journal: desk.gateway.settings.audit.dir.clone(),
        progress: Arc::new(Silent),
        threads: 1,
    }
}
