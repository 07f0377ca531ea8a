//! `GET /access-log`: who from which partner did what in my tenant, and when.
//!
//! A record over several tenants is shown as if it were about this one alone: its decision and reason are those of the
//! own slice, and a resource that may be another tenant's is left out. With `proof=true` each record comes with the proof
//! that it stands in the signed chain (`audit::evidence`); without it the fields are those of the contract and no others.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use schemars::JsonSchema;
use serde::Serialize;

use super::{home, turn};
use crate::{
    audit::{
        Decision, IndexUnavailable, Kind, Record, RecordFilter, RecordSearch,
        evidence::{RecordProof, proof::ShownCheckpoint},
        gather::{Gathered, Search},
        redact,
    },
    domain::{DecisionId, ErrorCode, Millis, PartnerId},
    portal::{
        Bases, Call, Found, Portal, Prepared, Problem, Question, Reply,
        query::{Paging, Params},
        writes,
    },
    store::{Provable, Unproven},
};

/// Records looked through for one answer at most, where some of them fall away.
const MOST_LOOKED_AT: usize = 20_000;
/// Most bytes held for one answer: one entry has some kilobytes at most.
const MOST_BYTES: usize = 32 << 20;

struct AccessLog {
    filter: RecordFilter,
    /// Tested on what is shown: a refusal of another tenant's slice is none here.
    decision: Option<Decision>,
    /// Each record with its proof.
    proof: bool,
    paging: Paging,
}

pub(in crate::portal) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    let mut params = Params::new(question.query);
    let period = params.period(question.now);
    let filter = RecordFilter {
        kind: Some(Kind::Access),
        from: Some(Millis::from_timestamp(period.from)),
        to: Some(end(period.to)),
        partner_id: params.parsed::<PartnerId>("partner_id", "the id of a partner (a uuid)"),
        user_id: params.search("user_id"),
        action: params.search("action"),
        ..RecordFilter::default()
    };
    let decision = params.word("decision", &[("allow", Decision::Allow), ("deny", Decision::Deny)]);
    let proof = params.flag("proof");
    let paging = params.paging();
    params.finish()?;
    Ok(Box::new(AccessLog { filter, decision, proof, paging }))
}

/// The first whole millisecond that is not before the end of the period.
fn end(at: jiff::Timestamp) -> Millis {
    let cut = Millis::from_timestamp(at);
    if cut.timestamp() == Some(at) { cut } else { Millis(cut.0.saturating_add(1)) }
}

/// One line of the log.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Access")]
pub(in crate::portal) struct Entry {
    id: DecisionId,
    time: Millis,
    partner_id: Option<PartnerId>,
    partner_name: Option<String>,
    user_id: Option<String>,
    username: Option<String>,
    action: Option<String>,
    method: Option<String>,
    path: Option<String>,
    resource_type: Option<String>,
    resource_id: Option<String>,
    decision: Decision,
    reason: Option<String>,
    status: Option<u16>,
    request_id: Option<String>,
    client_ip: Option<std::net::IpAddr>,
    user_agent: Option<String>,
    /// Where its proof is found; not shown.
    #[serde(skip)]
    place: Provable,
}

/// One line of the log with its proof.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ProvenAccess")]
pub(in crate::portal) struct ProvenEntry {
    #[serde(flatten)]
    entry: Entry,
    /// `null` with a reason beside it.
    proof: Option<RecordProof>,
    /// `pending`: younger than the last checkpoint, ask again later; `unavailable`: there is none.
    proof_reason: Option<&'static str>,
}

impl Entry {
    /// What `tenant` may see of the record; `None` where it is not about it.
    pub(super) fn of(bases: &Bases, record: Record, tenant: &str) -> Option<Self> {
        let own = record.slices.iter().find(|slice| slice.managed_tenant_id == tenant);
        let named = record.managed_tenant_id.as_deref() == Some(tenant);
        if own.is_none() && !named {
            return None;
        }
        // The record's own decision is about the whole, or about the tenant that it names.
        let (decision, reason) = match own {
            Some(slice) if !named && record.decision == Decision::Allow => (slice.decision, slice.reason.clone()),
            _ => (record.decision, record.reason.clone()),
        };
        let acted = own.is_some_and(|slice| slice.status.as_deref() == Some(writes::ACTED));
        let shared = !named && record.slices.len() > 1 && !acted;
        let place = Provable {
            chain_id: record.chain_id,
            opening: record.opening.seq,
            completion: record.completion.map(|stamp| stamp.seq),
            shared,
        };
        let path = record.path.as_deref().map(redact::redact_path_and_query);
        let path = match path {
            Some(path) if shared => without_parameter(bases, record.method.as_deref().unwrap_or_default(), &path),
            path => path,
        };
        Some(Self {
            id: record.id,
            time: record.time,
            partner_id: record.partner_id,
            partner_name: record.partner_name,
            user_id: record.user_id,
            username: record.username,
            action: record.action,
            method: record.method,
            path,
            resource_type: record.resource_type,
            resource_id: record.resource_id.filter(|_| !shared),
            decision,
            reason,
            status: record.status,
            request_id: record.request_id,
            client_ip: record.client_ip,
            user_agent: record.user_agent,
            place,
        })
    }
}

/// The path with its parameter as `_`; nothing where it is no path of this API any more.
fn without_parameter(bases: &Bases, method: &str, path: &str) -> Option<String> {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let Found::Endpoint { param, .. } = bases.find(method, path) else { return None };
    let path = match param {
        Some(param) => {
            let segments: Vec<&str> =
                path.split('/').map(|segment| if segment == param { "_" } else { segment }).collect();
            segments.join("/")
        }
        None => path.to_owned(),
    };
    Some(query.map_or_else(|| path.clone(), |query| format!("{path}?{query}")))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AccessLog")]
pub(in crate::portal) struct Answer {
    items: Vec<Entry>,
    /// Where `total_exact` is false: as many as were seen.
    total: u64,
    total_exact: bool,
    limit: u64,
    offset: u64,
    has_more: bool,
}

/// The same with proofs.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ProvenAccessLog")]
pub(in crate::portal) struct ProvenAnswer {
    items: Vec<ProvenEntry>,
    total: u64,
    total_exact: bool,
    limit: u64,
    offset: u64,
    has_more: bool,
    /// The signed checkpoints that the proofs lead to, one for each chain.
    checkpoints: Vec<ShownCheckpoint>,
}

/// One form or the other, by the parameter `proof`.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "AnyAccessLog", inline)]
pub(in crate::portal) enum AnyAnswer {
    Plain(Answer),
    Proven(ProvenAnswer),
}

/// The log with a proof for each record.
async fn proven(portal: &Portal, answer: Answer, tenant: &str) -> Result<ProvenAnswer, Problem> {
    let places: Vec<Provable> = answer.items.iter().map(|entry| entry.place).collect();
    let proofs = portal.records.prove(&places, tenant).await.map_err(|error| {
        tracing::error!(%error, source = ?std::error::Error::source(&error), "the access log cannot be proven");
        Problem::new(ErrorCode::UpstreamUnavailable, "proofs cannot be made now: try again later, or ask without")
    })?;
    let found = proofs.records.into_iter().chain(std::iter::repeat_with(|| Err(Unproven::Unavailable)));
    let items = answer.items.into_iter().zip(found).map(|(entry, found)| match found {
        Ok(proof) => ProvenEntry { entry, proof: Some(proof), proof_reason: None },
        Err(why) => ProvenEntry { entry, proof: None, proof_reason: Some(why.as_str()) },
    });
    let Answer { total, total_exact, limit, offset, has_more, .. } = answer;
    let (items, checkpoints) = (items.collect(), proofs.checkpoints);
    Ok(ProvenAnswer { items, total, total_exact, limit, offset, has_more, checkpoints })
}

impl Prepared for AccessLog {
    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let tenant = home(&call)?;
            // Held until the answer is made: proofs are read by the same readers.
            let _turn = turn(&portal, tenant).await?;
            let search = search(self.filter, &portal.bases, self.decision, tenant.as_str(), self.paging);
            let deadline = portal.settings.reads.deadline;
            let page = tokio::time::timeout(deadline, page(&portal.records, &search, self.paging)).await;
            let answer = page.map_err(|_| {
                let message = "this takes too long to look for: ask for a shorter period";
                Problem::new(ErrorCode::UpstreamTimeout, message)
            })??;
            let answer = match self.proof {
                true => AnyAnswer::Proven(proven(&portal, answer, tenant.as_str()).await?),
                false => AnyAnswer::Plain(answer),
            };
            Reply::json(200, &answer)
        }
        .boxed()
    }
}

/// What is kept while records are read is a tenant's own part of them, and one more than is shown.
fn search(
    filter: RecordFilter,
    bases: &Bases,
    decision: Option<Decision>,
    tenant: &str,
    Paging { limit, offset }: Paging,
) -> Search<Entry> {
    let filter = RecordFilter {
        managed_tenant_id: Some(tenant.to_owned()),
        limit: Some(usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1)),
        offset: usize::try_from(offset).unwrap_or(usize::MAX),
        ..filter
    };
    let (bases, tenant) = (bases.clone(), tenant.to_owned());
    let keep = move |record| {
        Entry::of(&bases, record, &tenant).filter(|entry| decision.is_none_or(|wanted| entry.decision == wanted))
    };
    // All that is looked at is shown or skipped, where nothing falls away: paging has a bound of its own.
    let most_looked_at = decision.map(|_| MOST_LOOKED_AT);
    Search { filter, keep: Arc::new(keep), most_bytes: MOST_BYTES, most_looked_at }
}

async fn page(records: &impl RecordSearch, search: &Search<Entry>, paging: Paging) -> Result<Answer, Problem> {
    let Gathered { mut items, cut } = records.search(search).await.map_err(|error| match error {
        IndexUnavailable::TooMuch(too_much) => Problem::new(ErrorCode::ValidationError, too_much.to_string()),
        error => {
            tracing::error!(%error, source = ?std::error::Error::source(&error), "the access log cannot be read");
            Problem::new(ErrorCode::UpstreamUnavailable, "the access log cannot be read now: try again later")
        }
    })?;
    let Paging { limit, offset } = paging;
    // One more than asked for was looked for.
    let has_more = items.len() as u64 > limit;
    items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let total = offset + items.len() as u64 + u64::from(has_more);
    let total_exact = !cut && !has_more && (offset == 0 || !items.is_empty());
    Ok(Answer { items, total, total_exact, limit, offset, has_more })
}

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;
