//! The emergency overlay: suspend and restore. It never touches the rows that it covers.

use uuid::Uuid;

use super::{Actor, Admin, Touch, Written};
use crate::{
    audit::{ChangeRecord, Kind},
    domain::{LinkId, PartnerId, link_rules::Refusal},
    store::{
        StoreError,
        records::{SUSPENSION_COLUMNS, SuspensionRecord, SuspensionScope},
        sql::{Value, composed},
    },
};

/// Most suspensions in force at once, of users, sessions and tokens together: they are all kept in memory.
pub(crate) const MOST_SUBJECTS: i64 = 100_000;
/// The same for partners, tenants and links, which every portfolio load reads.
pub(crate) const MOST_SCOPES: i64 = 10_000;

/// What to suspend.
#[derive(Clone, Debug)]
pub struct SuspensionInput {
    pub scope: SuspensionScope,
    /// Users only; `None`: of any issuer.
    pub issuer: Option<String>,
    /// `sub`, session id, `jti`, or the id of a partner, tenant or link; empty for `all`.
    pub subject: String,
    pub reason: String,
}

impl Admin {
    pub async fn suspend(
        &self,
        actor: &Actor,
        input: &SuspensionInput,
    ) -> Result<Written<SuspensionRecord>, StoreError> {
        let subject = canonical(input)?;
        let mut session = self.session(actor).await?;
        let record = SuspensionRecord {
            id: Uuid::now_v7(),
            scope: input.scope,
            issuer: input.issuer.clone(),
            subject,
            reason: input.reason.clone(),
            by: actor.name.clone(),
            at: session.now,
            lifted_at: None,
            lifted_by: None,
        };
        let of_subject = of_subject(record.scope);
        let (count, most) = if of_subject {
            (
                "SELECT count(*) FROM suspensions WHERE lifted_at IS NULL AND scope IN ('user', 'session', 'jti')",
                MOST_SUBJECTS,
            )
        } else {
            (
                "SELECT count(*) FROM suspensions WHERE lifted_at IS NULL AND scope NOT IN ('user', 'session', 'jti')",
                MOST_SCOPES,
            )
        };
        let standing = session.tx.row(count, &[]).await?.map_or(Ok(0), |row| row.int(0))?;
        if standing >= most {
            let message = format!("{most} suspensions of this kind are in force: suspend a whole partner, or all");
            return Err(Refusal::conflict(message).into());
        }
        session
            .tx
            .execute(
                "INSERT INTO suspensions (id, scope, issuer, subject, reason, by_actor, at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                &[
                    record.id.into(),
                    record.scope.as_str().into(),
                    Value::MaybeText(record.issuer.as_deref()),
                    record.subject.as_str().into(),
                    record.reason.as_str().into(),
                    record.by.as_str().into(),
                    record.at.0.into(),
                ],
            )
            .await?;
        session.touch(if of_subject { Touch::Suspensions } else { Touch::All });
        let change = session.suspension_record("suspension.begin", None, &record);
        session.enqueue(&change).await?;
        session.commit(record).await
    }

    /// Lifts one suspension, and nothing else that may cover the same subject.
    pub async fn restore(&self, actor: &Actor, id: Uuid) -> Result<Written<SuspensionRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        let sql = composed(format!("SELECT {SUSPENSION_COLUMNS} FROM suspensions WHERE id = $1 AND lifted_at IS NULL"));
        let before = match session.tx.row(sql, &[id.into()]).await? {
            Some(row) => SuspensionRecord::read(&row)?,
            None => return Err(StoreError::not_found("suspension in force", id)),
        };
        let after =
            SuspensionRecord { lifted_at: Some(session.now), lifted_by: Some(actor.name.clone()), ..before.clone() };
        session
            .tx
            .execute(
                "UPDATE suspensions SET lifted_at = $2, lifted_by = $3 WHERE id = $1",
                &[id.into(), session.now.0.into(), actor.name.as_str().into()],
            )
            .await?;
        session.touch(if of_subject(after.scope) { Touch::Suspensions } else { Touch::All });
        let change = session.suspension_record("suspension.lift", Some(&before), &after);
        session.enqueue(&change).await?;
        session.commit(after).await
    }
}

fn of_subject(scope: SuspensionScope) -> bool {
    matches!(scope, SuspensionScope::User | SuspensionScope::Session | SuspensionScope::Jti)
}

/// The subject as it will be compared: uuids in their one written form.
fn canonical(input: &SuspensionInput) -> Result<String, Refusal> {
    let subject = input.subject.as_str();
    let uuid = |parsed: Option<Uuid>| {
        parsed.map(|id| id.to_string()).ok_or_else(|| Refusal::field("subject", "is not a uuid"))
    };
    if input.issuer.is_some() && input.scope != SuspensionScope::User {
        return Err(Refusal::field("issuer", "belongs to the suspension of a user only"));
    }
    if input.reason.trim().is_empty() || input.reason.chars().count() > 1000 {
        return Err(Refusal::field("reason", "1 to 1000 characters"));
    }
    match input.scope {
        SuspensionScope::All if subject.is_empty() => Ok(String::new()),
        SuspensionScope::All => Err(Refusal::field("subject", "must be empty: everything is suspended")),
        SuspensionScope::Partner => uuid(subject.trim().parse::<PartnerId>().ok().map(|id| id.0)),
        SuspensionScope::Link => uuid(subject.trim().parse::<LinkId>().ok().map(|id| id.0)),
        _ if subject.is_empty() || subject.chars().count() > 512 || subject.contains('\0') => {
            Err(Refusal::field("subject", "1 to 512 characters"))
        }
        _ => Ok(subject.to_owned()),
    }
}

impl super::Session<'_> {
    fn suspension_record(
        &self,
        action: &str,
        before: Option<&SuspensionRecord>,
        after: &SuspensionRecord,
    ) -> ChangeRecord {
        ChangeRecord {
            resource_type: Some("suspension".to_owned()),
            resource_id: Some(after.id.to_string()),
            before: before.and_then(|record| serde_json::to_value(record).ok()),
            after: serde_json::to_value(after).ok(),
            ..self.record(Kind::Admin, action)
        }
    }
}
