//! `linkgate explain ID`: the full reason of a decision, which no answer to a client ever holds.
//!
//! By decision id (`X-Decision-Id`) or by request id, of which there may be several records: clients choose those. Asks
//! the index first; what it does not have, or has only the opening of, is looked for in the journal.

use std::fmt::Write;

use clap::Args;

use super::{
    audit::{plain, unreadable},
    outcome::{Console, Exit, Failure},
};
use crate::{
    audit::{AuditSettings, Record, RecordFilter, RecordSource, scan},
    domain::DecisionId,
};

/// Most records of one request id that are shown.
const SHOWN_MAX: usize = 100;

/// Explain a decision.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Decision id (`X-Decision-Id` of an answer) or request id (`X-Request-ID`).
    id: String,
}

/// Runs the command. `source` is `None` where no database is configured or reachable.
pub async fn run<S: RecordSource>(
    args: ExplainArgs,
    audit: &AuditSettings,
    source: Option<&S>,
    console: &Console,
) -> Result<(), Failure> {
    // A client may choose a request id that looks like a decision id: both are looked for.
    let by_decision = args.id.parse::<DecisionId>().ok().map(|id| RecordFilter {
        id: Some(id),
        limit: Some(1),
        ..RecordFilter::default()
    });
    let by_request =
        RecordFilter { request_id: Some(args.id.clone()), limit: Some(SHOWN_MAX), ..RecordFilter::default() };
    let filters: Vec<RecordFilter> = by_decision.into_iter().chain([by_request]).collect();
    let mut records = Vec::new();
    if let Some(source) = source {
        for filter in &filters {
            match source.query(filter).await {
                Ok(found) => records.extend(found),
                Err(error) => eprintln!("warning: {error}; reading the journal instead"),
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
    if records.is_empty() {
        return Err(Failure::new(Exit::NotFound, format_args!("no audit record has the id `{}`", plain(&args.id))));
    }
    let text: Vec<String> = records.iter().map(explanation).collect();
    console.show(&records, text.join("\n\n"))
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
