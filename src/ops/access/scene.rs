//! What the questions share: the links of then, what records say, and the words for a link's state.
//!
//! Use and tokens are read where they are complete: from the journal on this machine, or, where replicas with a journal
//! each share one Postgres, from the index that holds the lines of all of them. Neither is asked to be older than it is:
//! from when on it knows is told with every answer.

use std::{io::ErrorKind, path::PathBuf, sync::Arc};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    audit::{
        JournalError,
        sweep::{Progress, Wanted, sweep},
        usage::Usage,
    },
    domain::{Approval, Gate, Link, LinkFacts, LinkId, Millis, PartnerId, TenantId},
    ops::{Trouble, aside},
    policy::Bundle,
    store::{Admin, AuditStore},
};

/// How many records are looked at in one question; beyond them what is older is told as not known.
const MOST_RECORDS: u64 = 50_000_000;

/// The policies that effective rights are told by.
#[derive(Clone, Debug)]
pub struct Set {
    pub bundle: Arc<Bundle>,
    pub name: String,
}

/// What the questions are asked of.
pub struct Desk {
    pub admin: Admin,
    pub index: AuditStore,
    /// Folder of the journal.
    pub journal: PathBuf,
    /// Told how far a walk through the journal is.
    pub progress: Arc<dyn Progress + Send>,
    /// For long work.
    pub threads: usize,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("journal", &self.journal).finish_non_exhaustive()
    }
}

/// Where use was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RecordsSource")]
pub(crate) enum Source {
    Journal,
    Index,
    /// Nobody asked.
    NotAsked,
}

/// What records say, and how far they know.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) usage: Usage,
    pub(crate) source: Source,
    /// From here on no record is missing; `None`: nothing is recorded at all.
    pub(crate) knows_from: Option<Millis>,
    /// Of the index: the newest record in it.
    pub(crate) knows_until: Option<Millis>,
}

impl Recorded {
    pub(crate) fn not_asked() -> Self {
        Self { usage: Usage::default(), source: Source::NotAsked, knows_from: None, knows_until: None }
    }
}

impl Desk {
    pub(crate) async fn recorded(&self, wanted: Wanted) -> Result<Recorded, Trouble> {
        if self.index.holds_lines() {
            let told = self.index.usage(&wanted, MOST_RECORDS).await?;
            return Ok(Recorded {
                usage: told.usage,
                source: Source::Index,
                knows_from: told.knows_from,
                knows_until: told.knows_until,
            });
        }
        let (dir, progress, threads) = (self.journal.clone(), Arc::clone(&self.progress), self.threads.max(1));
        aside(move || {
            let workers = (0..threads).map(|_| Usage::default()).collect();
            match sweep(&dir, &wanted, workers, &*progress, |usage: &mut Usage, opened| usage.see(opened)) {
                Ok(swept) => Ok(Recorded {
                    usage: swept.workers.into_iter().fold(Usage::default(), Usage::and),
                    source: Source::Journal,
                    knows_from: swept.begins,
                    knows_until: None,
                }),
                // No gateway has run here yet, or its journal is elsewhere: then nothing is known, which is told.
                Err(JournalError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    Ok(Recorded { source: Source::Journal, ..Recorded::not_asked() })
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }
}

/// How a link stood, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "LinkState")]
pub(crate) enum State {
    Live,
    Suspended,
    PartnerInactive,
    Pending,
    Rejected,
    Revoked,
    NotStarted,
    Expired,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Suspended => "suspended",
            Self::PartnerInactive => "partner_inactive",
            Self::Pending => "pending",
            Self::Rejected => "rejected",
            Self::Revoked => "revoked",
            Self::NotStarted => "not_started",
            Self::Expired => "expired",
        }
    }

    /// And which link of the chain closed it, where it is not the link itself.
    pub(crate) fn of(facts: &LinkFacts, at: Millis) -> (Self, Option<LinkId>) {
        let Some(gate) = facts.closed_gate(at) else { return (Self::Live, None) };
        let own = std::iter::once((&facts.link, facts.partner_active, facts.suspended));
        let parents = facts.ancestors.iter().map(|one| (&one.link, one.partner_active, one.suspended));
        let closed = own.chain(parents).find(|(link, active, suspended)| closes(gate, link, *active, *suspended, at));
        let closer = closed.map_or(&facts.link, |(link, _, _)| link);
        let state = match gate {
            Gate::Suspension => Self::Suspended,
            Gate::Partner => Self::PartnerInactive,
            Gate::Approval if closer.approval == Approval::Rejected => Self::Rejected,
            Gate::Approval => Self::Pending,
            Gate::Started => Self::NotStarted,
            Gate::Ended => Self::Expired,
            _ => Self::Revoked,
        };
        (state, Some(closer.id).filter(|id| *id != facts.link.id))
    }
}

fn closes(gate: Gate, link: &Link, partner_active: bool, suspended: bool, at: Millis) -> bool {
    match gate {
        Gate::Suspension => suspended,
        Gate::Partner => !partner_active,
        Gate::Approval => link.approval != Approval::Approved,
        Gate::Active => !link.is_active,
        Gate::Started => at < link.start,
        Gate::Ended => link.end.is_some_and(|end| end <= at),
        _ => false,
    }
}

/// The tenant or partner that a report is about.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct Head {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenant_id: Option<TenantId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partner_id: Option<PartnerId>,
    pub(crate) name: String,
}

/// So many days before.
pub(crate) fn days_before(at: Millis, days: u32) -> Millis {
    Millis(at.0.saturating_sub(i64::from(days).saturating_mul(86_400_000)))
}
