//! `linkgate explain`: why a request was refused or allowed, and what single change would have turned it round.
//!
//! Of a recorded request, by decision id (`X-Decision-Id`) or request id, of which there may be several records: clients
//! choose those. Or of a made-up one (`--request`, or flags). Each of its decisions is made again with the facts of the
//! record, every gate is listed, and the near misses are found by deciding again with one fact changed. How, and who may
//! see what, stands in `ops::explain`.

mod ask;

use std::fmt::Write;

use clap::{Args, ValueEnum};

use self::ask::MadeUp;
use super::{
    context::Context,
    outcome::{Console, Exit, Failure, tell},
    policy::{SetArgs, load},
    trouble::unreadable,
};
use crate::{
    audit::{AuditSettings, Record, RecordFilter, RecordSource, scan},
    domain::DecisionId,
    ops::{
        explain::{Asked, Seen, Viewer, Whole},
        plain,
    },
    policy::Bundle,
    proxy::account::DECIDED,
};

/// Most records of one request id that are shown.
const SHOWN_MAX: usize = 100;

/// Explain a decision.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Decision id (`X-Decision-Id` of an answer) or request id (`X-Request-ID`)
    #[arg(required_unless_present_any = ["request", "permission"], conflicts_with_all = ["request", "permission"])]
    id: Option<String>,
    /// For whom: caller (what the answer says), tenant (a managed tenant's administrator), operator (everything)
    #[arg(long = "as", value_name = "WHO", default_value = "operator")]
    view: View,
    /// The tenant of `--as tenant`
    #[arg(long, value_name = "ID", required_if_eq("view", "tenant"))]
    tenant: Option<String>,
    #[command(flatten)]
    set: SetArgs,
    #[command(flatten)]
    made_up: MadeUp,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum View {
    Caller,
    Tenant,
    Operator,
}

/// Finds out what is to be explained, and runs the command.
pub fn start(mut args: ExplainArgs, context: &Context) -> Result<(), Failure> {
    args.set.policies = args.set.dir(context);
    if args.id.is_none() {
        let bundle = load(args.set.policies.as_deref())?;
        let asked = args.made_up.case(&bundle, context)?;
        return made_up(&args, &bundle, &asked, &context.console);
    }
    let console = &context.console;
    context.audit(async |audit, index| run(args, audit, index, console).await)
}

/// Explains records. `source` is `None` where no database is configured or reachable.
pub async fn run<S: RecordSource>(
    args: ExplainArgs,
    audit: &AuditSettings,
    source: Option<&S>,
    console: &Console,
) -> Result<(), Failure> {
    let bundle = load(args.set.policies.as_deref())?;
    let id = args.id.as_deref().unwrap_or_default();
    let records = find(id, audit, source).await?;
    let viewer = viewer(&args);
    let seen: Vec<Seen> = records.into_iter().filter_map(|record| Seen::of_record(record, &bundle, &viewer)).collect();
    // A record of others is as unknown to a tenant as one that does not exist.
    if seen.is_empty() {
        return Err(Failure::new(Exit::NotFound, format_args!("no audit record has the id `{}`", plain(id))));
    }
    console.show(&seen, joined(seen.iter().map(text)))
}

fn viewer(args: &ExplainArgs) -> Viewer {
    match (args.view, &args.tenant) {
        (View::Caller, _) => Viewer::Caller,
        (View::Tenant, Some(tenant)) => Viewer::Tenant(tenant.clone()),
        _ => Viewer::Operator,
    }
}

fn made_up(args: &ExplainArgs, bundle: &Bundle, asked: &Asked, console: &Console) -> Result<(), Failure> {
    let seen = Seen::of_asked(asked, bundle, &viewer(args)).ok_or_else(|| {
        let tenant = args.tenant.as_deref().unwrap_or_default();
        Failure::new(Exit::NotFound, format_args!("the request is not about the tenant `{}`", plain(tenant)))
    })?;
    console.show(&seen, text(&seen))
}

fn text(seen: &Seen) -> String {
    match seen {
        Seen::Caller(caller) => caller.text(),
        Seen::Tenant(view) => view.text(),
        Seen::Record(whole) => whole_text(whole),
        Seen::Request(reasons) => reasons.text(),
    }
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("\n\n")
}

/// Asks the index first; what it does not have, or has only the opening of, is looked for in the journal.
async fn find<S: RecordSource>(id: &str, audit: &AuditSettings, source: Option<&S>) -> Result<Vec<Record>, Failure> {
    // A client may choose a request id that looks like a decision id: both are looked for.
    let by_decision = id.parse::<DecisionId>().ok().map(|id| RecordFilter {
        id: Some(id),
        limit: Some(1),
        ..RecordFilter::default()
    });
    let by_request =
        RecordFilter { request_id: Some(id.to_owned()), limit: Some(SHOWN_MAX), ..RecordFilter::default() };
    let filters: Vec<RecordFilter> = by_decision.into_iter().chain([by_request]).collect();
    let mut records = Vec::new();
    if let Some(source) = source {
        for filter in &filters {
            match source.query(filter).await {
                Ok(found) => records.extend(found),
                Err(error) => tell(format_args!("warning: {error}; reading the journal instead")),
            }
        }
    }
    if records.is_empty() || records.iter().any(|record| !record.is_whole()) {
        let mut fresh = Vec::new();
        for filter in &filters {
            fresh.extend(scan::newest(&audit.dir, filter, SHOWN_MAX).map_err(unreadable)?);
        }
        // Where the journal has moved on its word counts; a record of an archived segment is in the index only.
        records.retain(|record| fresh.iter().all(|newer| newer.id != record.id));
        records.append(&mut fresh);
    }
    records.sort_by_key(|record| (record.time, record.id));
    records.dedup_by_key(|record| record.id);
    Ok(records)
}

/// What was decided and why first, then the gates.
fn whole_text(whole: &Whole) -> String {
    let mut out = explanation(&whole.record);
    for reasons in &whole.decisions {
        let text = reasons.text();
        // Writing to a string cannot fail.
        let _ = write!(out, "\n{}", text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"));
    }
    out
}

/// The record as a person reads it: what was decided and why first.
fn explanation(record: &Record) -> String {
    let mut out = String::new();
    let reason = record.reason.as_deref().map(|reason| format!(", {}", plain(reason))).unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = write!(out, "{} {}{reason}", record.id, record.decision.as_str());
    let mut field = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = write!(out, "\n  {name:<18} {}", plain(&value));
        }
    };
    let pair = |left: &Option<String>, right: &Option<String>| match (left, right) {
        (Some(left), Some(right)) => Some(format!("{left} ({right})")),
        (one, other) => one.clone().or_else(|| other.clone()),
    };
    field("time", Some(record.time.to_string()));
    field("kind", Some(record.kind.as_str().to_owned()));
    field("user", pair(&record.user_id, &record.username));
    field("issuer", record.issuer.clone());
    field("partner", pair(&record.partner_id.map(|id| id.to_string()), &record.partner_name));
    field("home tenant", record.partner_tenant_id.clone());
    field("action", record.action.clone());
    field("request", record.method.as_ref().zip(record.path.as_ref()).map(|(method, path)| format!("{method} {path}")));
    field("resource", pair(&record.resource_type, &record.resource_id));
    field("managed tenant", record.managed_tenant_id.clone());
    field("link", record.link_id.map(|id| id.to_string()));
    field("link version", record.link_version.map(|version| version.to_string()));
    field("policies", Some(record.policies.join(", ")));
    field("policy version", record.policy_version.clone());
    field("near misses", Some(record.near_misses.join(", ")));
    field("mfa", record.mfa.map(|mfa| if mfa { "shown" } else { "not shown" }.to_owned()));
    field("client", pair(&record.client_ip.map(|ip| ip.to_string()), &record.user_agent));
    field("outcome", outcome(record));
    field("upstream", record.upstream.clone());
    field("request id", record.request_id.clone());
    field("trace id", record.trace_id.clone());
    for slice in &record.slices {
        let part =
            |name: &str, value: Option<String>| value.map(|value| format!(", {name} {value}")).unwrap_or_default();
        field(
            "slice",
            Some(format!(
                "{}: {}{}{}{}{}",
                slice.managed_tenant_id,
                slice.decision.as_str(),
                part("reason", slice.reason.clone()),
                part("link", slice.link_id.map(|id| id.to_string())),
                part("version", slice.link_version.map(|version| version.to_string())),
                part("status", slice.status.clone()),
            )),
        );
    }
    for other in &record.waived {
        field(
            "not enforced",
            Some(format!("{}: {}", other.reason.as_deref().unwrap_or_default(), other.policies.join(", "))),
        );
    }
    if let Some(shadow) = &record.shadow {
        let said = if shadow.differs.is_empty() { "agreed" } else { "differed" };
        field("shadow set", Some(format!("{said} (version {})", shadow.version)));
        for other in &shadow.differs {
            let about = other.managed_tenant_id.as_deref().map(|tenant| format!(" for {tenant}")).unwrap_or_default();
            let reason = other.reason.as_deref().map(|reason| format!(", {reason}")).unwrap_or_default();
            let policies = other.policies.join(", ");
            field("shadow said", Some(format!("{}{about}{reason} ({policies})", other.decision.as_str())));
        }
    }
    field("before", record.before.as_ref().map(ToString::to_string));
    field("after", record.after.as_ref().map(ToString::to_string));
    field("chain", Some(chain(record)));
    out
}

fn outcome(record: &Record) -> Option<String> {
    if !record.is_whole() {
        return Some("still open".to_owned());
    }
    record.completion?;
    if record.status.is_none() && record.reason.as_deref() == Some(DECIDED) {
        let took = record.duration_us.unwrap_or_default();
        return Some(format!(
            "decided in {took} µs; another proxy carried it out, and linkgate did not see its answer"
        ));
    }
    let status = record.status.map_or("no answer".to_owned(), |status| status.to_string());
    let aborted = if record.aborted == Some(true) { ", aborted" } else { "" };
    Some(format!(
        "{status}{aborted}, {} bytes in {} µs",
        record.bytes.unwrap_or_default(),
        record.duration_us.unwrap_or_default()
    ))
}

fn chain(record: &Record) -> String {
    let completed = record.completion.map(|stamp| format!(", completed by record {}", stamp.seq)).unwrap_or_default();
    format!("{} record {}{completed}", record.chain_id, record.opening.seq)
}
