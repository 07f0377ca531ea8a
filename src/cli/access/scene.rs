//! What the questions share: the links of then, what records say, and the words for a link's state.
//!
//! Use and tokens are read where they are complete: from the journal on this machine, or, where replicas with a journal
//! each share one Postgres, from the index that holds the lines of all of them. Neither is asked to be older than it is:
//! from when on it knows is told with every answer.

use std::io::ErrorKind;

use serde::Serialize;

use crate::{
    audit::{
        JournalError,
        sweep::{Wanted, sweep},
        usage::Usage,
    },
    cli::{
        audit::unreadable,
        context::{Context, chain},
        outcome::Failure,
        policy::{SetArgs, flips::Bar, name_of},
        store_context::runtime,
    },
    config::Config,
    domain::{Approval, Gate, Link, LinkFacts, LinkId, Millis, PartnerId, TenantId},
    policy::Bundle,
    store::{Admin, AuditStore, Database},
};

/// How many records are looked at in one question; beyond them what is older is told as not known.
const MOST_RECORDS: u64 = 50_000_000;

/// The policies that effective rights are told by.
pub(super) struct Set {
    pub(super) bundle: Bundle,
    pub(super) name: String,
}

impl Set {
    pub(super) fn load(args: &SetArgs, context: &Context) -> Result<Self, Failure> {
        Ok(Self { bundle: args.load(context)?, name: name_of(args.dir(context).as_deref()) })
    }
}

/// The database with everything beside it, for one question.
pub(super) struct Desk {
    pub(super) admin: Admin,
    index: AuditStore,
    config: Config,
}

/// Opens the database, runs one question on it, closes it.
pub(super) fn with<T>(
    context: &Context,
    set: &Set,
    work: impl AsyncFnOnce(&Desk) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let config = context.config()?;
    runtime()?.block_on(async {
        let db = Database::open(&config.database).await?;
        db.check_migrated().await?;
        let roles = std::sync::Arc::new(set.bundle.roles().clone());
        let desk = Desk {
            admin: Admin::new(&db, roles, config.links.approvals),
            index: AuditStore::new(&db, &config.audit.dir),
            config,
        };
        let done = work(&desk).await;
        db.close().await;
        done
    })
}

/// Where use was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    Journal,
    Index,
    /// Nobody asked.
    NotAsked,
}

/// What records say, and how far they know.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) usage: Usage,
    pub(super) source: Source,
    /// From here on no record is missing; `None`: nothing is recorded at all.
    pub(super) knows_from: Option<Millis>,
    /// Of the index: the newest record in it.
    pub(super) knows_until: Option<Millis>,
}

impl Recorded {
    pub(super) fn not_asked() -> Self {
        Self { usage: Usage::default(), source: Source::NotAsked, knows_from: None, knows_until: None }
    }
}

impl Desk {
    pub(super) async fn recorded(&self, wanted: &Wanted) -> Result<Recorded, Failure> {
        if self.index.holds_lines() {
            let told = self.index.usage(wanted, MOST_RECORDS).await.map_err(|error| Failure::failed(chain(&error)))?;
            return Ok(Recorded {
                usage: told.usage,
                source: Source::Index,
                knows_from: told.knows_from,
                knows_until: told.knows_until,
            });
        }
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = (0..threads).map(|_| Usage::default()).collect();
        let bar = Bar::start();
        let swept = sweep(&self.config.audit.dir, wanted, workers, &bar, |usage: &mut Usage, opened| usage.see(opened));
        bar.clear();
        match swept {
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
            Err(error) => Err(unreadable(error.into())),
        }
    }

    pub(super) fn journal(&self) -> String {
        self.config.audit.dir.display().to_string()
    }
}

/// How a link stood, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
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
    pub(super) fn as_str(self) -> &'static str {
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
    pub(super) fn of(facts: &LinkFacts, at: Millis) -> (Self, Option<LinkId>) {
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
#[derive(Clone, Debug, Serialize)]
pub(super) struct Head {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant_id: Option<TenantId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partner_id: Option<PartnerId>,
    pub(super) name: String,
}

/// So many days before.
pub(super) fn days_before(at: Millis, days: u32) -> Millis {
    Millis(at.0.saturating_sub(i64::from(days).saturating_mul(86_400_000)))
}
