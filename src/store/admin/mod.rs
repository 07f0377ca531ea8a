//! Changing partners, tenants, users, links and suspensions: every way in (API, command line, import) ends here.
//!
//! Invariant: one operation is one transaction, and it raises the change counter before it reads anything. The counter
//! is one row, so changes form a line: each sees all changes before it, numbers commit in order, and a reader that has
//! seen number `n` has seen everything up to it. The same transaction holds the rows, their history, the change log and
//! the audit record in the outbox: either all of it happened or nothing.

mod alerts;
mod below;
mod import;
mod link_rows;
mod links;
mod lists;
mod outbox;
mod parties;
mod suspensions;
mod users;
mod webhook_secrets;
mod webhooks;

use std::{net::IpAddr, sync::Arc};

pub use import::{ImportInput, ImportReport, ImportRow, ImportStopped, RefusedRow, Stop};
pub use lists::{LinkFilter, Page};
pub use outbox::{ClaimedRow, Freed, Waiting};
pub use parties::{PartnerInput, TenantInput};
pub use suspensions::{Reach, SuspensionInput};
pub use users::UserInput;
pub use webhook_secrets::Resealed;
pub use webhooks::{Redeliver, SubscriptionInput, SubscriptionRecord};

use super::{
    Database, StoreError,
    sql::{Tx, Value},
};
use crate::{
    audit::{ChangeRecord, Kind},
    domain::{ApprovalRules, Millis, PartnerId, RoleTable, link_rules::Refusal, plain},
    identity::Vault,
};

/// The channel of Postgres notices; they carry the number of the change.
pub(crate) const CHANNEL: &str = "linkgate_changes";
/// How many numbers the change log reaches back; a feed that was away for longer reloads everything.
pub(crate) const LOG_REACH: i64 = 10_000;
/// A change that touches more than this is told as "everything".
const MOST_TOUCHED: usize = 256;

/// Who makes a change, as history and audit will name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// `cli:<os user>`, or a token's `sub`.
    pub name: String,
    pub username: Option<String>,
    /// Who really acts, where `name` is chosen freely: four eyes look at both.
    pub account: Option<String>,
    pub request_id: Option<String>,
    pub client_ip: Option<IpAddr>,
}

impl Actor {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// A name that people are shown before they approve what it asked for.
    fn check(&self) -> Result<(), Refusal> {
        match plain::fault(&self.name) {
            Some(fault) => Err(Refusal {
                message: "the change names nobody who can be shown".to_owned(),
                ..Refusal::field("change", "actor", fault)
            }),
            None => Ok(()),
        }
    }

    /// Every name by which four eyes know them; the first is the one that is shown.
    pub(crate) fn names(&self) -> Vec<&str> {
        std::iter::once(self.name.as_str()).chain(self.account.as_deref().filter(|own| *own != self.name)).collect()
    }
}

/// What a change invalidates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Touch {
    /// The portfolio of this partner, or the knowledge that there is none.
    Partner(PartnerId),
    Member {
        issuer: String,
        sub: String,
    },
    /// The set of suspended users, sessions and tokens.
    Suspensions,
    /// Every portfolio and member.
    All,
}

/// A committed change: hand it to [`super::Directory::notice`] to make it effective in this process at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// 0: nothing was changed.
    pub seq: u64,
    pub touched: Vec<Touch>,
}

/// A value that was written, and the change it came with.
#[derive(Clone, Debug, PartialEq)]
pub struct Written<T> {
    pub value: T,
    pub change: Change,
}

/// The writing side of the store.
#[derive(Clone, Debug)]
pub struct Admin {
    pub(super) db: Database,
    roles: Arc<RoleTable>,
    approvals: ApprovalRules,
    /// For the secrets of webhooks.
    vault: Arc<Vault>,
}

impl Admin {
    /// `roles`: the table in force, which overrides are judged by. `approvals`: what `[links]` asks for.
    pub fn new(db: &Database, roles: Arc<RoleTable>, approvals: impl Into<ApprovalRules>) -> Self {
        Self { db: db.clone(), roles, approvals: approvals.into(), vault: Arc::default() }
    }

    async fn session<'a>(&'a self, actor: &'a Actor) -> Result<Session<'a>, StoreError> {
        actor.check()?;
        let mut tx = self.db.begin_write().await?;
        let seq = tx
            .row("UPDATE change_counter SET seq = seq + 1 WHERE id = 1 RETURNING seq", &[])
            .await?
            .ok_or_else(|| StoreError::NotMigrated("the change counter has no row".to_owned()))?
            .int(0)?;
        Ok(Session { tx, admin: self, actor, seq, now: Millis::now(), touched: Vec::new() })
    }
}

/// One writing transaction, with its change number.
struct Session<'a> {
    tx: Tx,
    admin: &'a Admin,
    actor: &'a Actor,
    seq: i64,
    now: Millis,
    touched: Vec<Touch>,
}

impl Session<'_> {
    fn touch(&mut self, touch: Touch) {
        self.touched.push(touch);
    }

    /// An audit record of this change, to be chained by a server.
    fn record(&self, kind: Kind, action: &str) -> ChangeRecord {
        ChangeRecord {
            time: self.now,
            user_id: Some(self.actor.name.clone()),
            username: self.actor.username.clone(),
            request_id: self.actor.request_id.clone(),
            client_ip: self.actor.client_ip,
            ..ChangeRecord::new(kind, action)
        }
    }

    async fn enqueue(&mut self, record: &ChangeRecord) -> Result<(), StoreError> {
        let body = serde_json::to_value(record)
            .map_err(|error| StoreError::Damaged { table: "audit_outbox", what: error.to_string() })?;
        self.tx
            .execute(
                "INSERT INTO audit_outbox (id, change_seq, at, body) VALUES ($1, $2, $3, $4)",
                &[Value::Id(record.id.0), self.seq.into(), self.now.0.into(), Value::Json(&body)],
            )
            .await?;
        Ok(())
    }

    /// Commits a session that changed something.
    async fn commit<T>(mut self, value: T) -> Result<Written<T>, StoreError> {
        let mut seen = std::collections::HashSet::new();
        self.touched.retain(|touch| seen.insert(touch.clone()));
        if self.touched.len() > MOST_TOUCHED || self.touched.contains(&Touch::All) {
            let suspensions = self.touched.contains(&Touch::Suspensions);
            self.touched = vec![Touch::All];
            self.touched.extend(suspensions.then_some(Touch::Suspensions));
        }
        self.log_touched().await?;
        if self.seq % 64 == 0 {
            self.tx.execute("DELETE FROM change_log WHERE seq <= $1", &[(self.seq - LOG_REACH).into()]).await?;
        }
        if self.tx.conn().is_postgres() {
            let seq = self.seq.to_string();
            self.tx.row("SELECT pg_notify($1, $2)", &[CHANNEL.into(), seq.as_str().into()]).await?;
        }
        self.tx.commit().await?;
        let change = Change { seq: u64::try_from(self.seq).unwrap_or_default(), touched: self.touched };
        Ok(Written { value, change })
    }

    /// Every number has a row at least, so that a reader can tell a quiet change from a pruned one.
    async fn log_touched(&mut self) -> Result<(), StoreError> {
        const INSERT: &str =
            "INSERT INTO change_log (seq, kind, partner_id, issuer, sub, at) VALUES ($1, $2, $3, $4, $5, $6)";
        let (seq, at) = (Value::Int(self.seq), Value::Int(self.now.0));
        let nothing = [Value::MaybeId(None), Value::MaybeText(None), Value::MaybeText(None)];
        if self.touched.is_empty() {
            let [id, issuer, sub] = nothing;
            self.tx.execute(INSERT, &[seq, "none".into(), id, issuer, sub, at]).await?;
        }
        for touch in &self.touched {
            let [no_id, no_issuer, no_sub] = nothing;
            let (kind, id, issuer, sub) = match touch {
                Touch::Partner(partner) => ("partner", Value::MaybeId(Some(partner.0)), no_issuer, no_sub),
                Touch::Member { issuer, sub } => {
                    ("member", no_id, Value::MaybeText(Some(issuer)), Value::MaybeText(Some(sub)))
                }
                Touch::Suspensions => ("suspension", no_id, no_issuer, no_sub),
                Touch::All => ("all", no_id, no_issuer, no_sub),
            };
            self.tx.execute(INSERT, &[seq, kind.into(), id, issuer, sub, at]).await?;
        }
        Ok(())
    }
}

/// What an operation that found nothing to do answers; its transaction is rolled back.
fn unchanged<T>(value: T) -> Written<T> {
    Written { value, change: Change::default() }
}
