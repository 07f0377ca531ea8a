//! The emergency overlay: suspend, restore, and what a suspension would cover. It never touches the rows that it covers.

use serde::Serialize;
use uuid::Uuid;

use super::{Actor, Admin, Touch, Written};
use crate::{
    audit::{ChangeRecord, Kind},
    domain::{LinkId, Millis, PartnerId, TenantId, link_rules::Refusal, plain},
    store::{
        StoreError,
        portfolio::load_suspended,
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

/// What a suspension covers at this moment: for the question before it, and for who reads of it later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Reach {
    /// Links that are approved, active and within their window, those delegated onward included.
    pub live_links: i64,
    /// Partners of these links.
    pub partners: i64,
    /// Tenants that these links lead to.
    pub tenants: i64,
    /// Known partner users, where a user is meant. Sessions and tokens are not known here.
    pub users: Option<i64>,
}

impl Admin {
    /// What this suspension would cover now. A partner, tenant or link that does not exist is an error: whoever mistypes
    /// an id at three in the morning must not be told that all is well.
    pub async fn reach(&self, input: &SuspensionInput) -> Result<Reach, StoreError> {
        let subject = canonical(input)?;
        let (condition, value) = match input.scope {
            SuspensionScope::User => return self.reach_of_user(input.issuer.as_deref(), &subject).await,
            SuspensionScope::Session | SuspensionScope::Jti => return Ok(Reach::default()),
            SuspensionScope::All => ("$1 = ''", Value::Text("")),
            SuspensionScope::Tenant => {
                let tenant = TenantId::new(&subject)
                    .map_err(|error| Refusal::field("suspension", "subject", error.to_string()))?;
                self.tenant(&tenant).await?;
                ("managed_tenant_id = $1", Value::Text(&subject))
            }
            SuspensionScope::Partner => {
                let partner = PartnerId(parsed(&subject)?);
                self.partner(partner).await?;
                ("partner_id = $1", Value::Id(partner.0))
            }
            SuspensionScope::Link => {
                let link = LinkId(parsed(&subject)?);
                self.link(link).await?;
                ("id = $1", Value::Id(link.0))
            }
        };
        self.count_reach(condition, value).await
    }

    async fn reach_of_user(&self, issuer: Option<&str>, sub: &str) -> Result<Reach, StoreError> {
        const OF_ISSUER: &str = "SELECT count(*) FROM partner_users WHERE sub = $1 AND issuer = $2";
        const OF_ANY: &str = "SELECT count(*) FROM partner_users WHERE sub = $1 AND $2 = ''";
        let (sql, issuer) = issuer.map_or((OF_ANY, ""), |issuer| (OF_ISSUER, issuer));
        let row = self.db.begin_read().await?.row(sql, &[sub.into(), issuer.into()]).await?;
        let users = row.map_or(Ok(0), |row| row.int(0))?;
        Ok(Reach { users: Some(users), ..Reach::default() })
    }

    async fn count_reach(&self, condition: &'static str, value: Value<'_>) -> Result<Reach, StoreError> {
        // UNION drops repeats, and the bound ends a ring that was written by hand.
        let sql = composed(format!(
            "WITH RECURSIVE covered (link_id, level) AS (\
                SELECT id, 1 FROM partner_tenant_links WHERE {condition} \
                UNION \
                SELECT child.id, covered.level + 1 FROM partner_tenant_links child \
                JOIN covered ON child.parent_link_id = covered.link_id WHERE covered.level < 8\
             ) SELECT count(*), count(DISTINCT partner_id), count(DISTINCT managed_tenant_id) FROM partner_tenant_links \
             WHERE id IN (SELECT link_id FROM covered) AND is_active AND approval = 'approved' AND start_date <= $2 \
             AND (end_date IS NULL OR end_date > $2)"
        ));
        let row = self.db.begin_read().await?.row(sql, &[value, Millis::now().0.into()]).await?;
        let Some(row) = row else { return Ok(Reach::default()) };
        Ok(Reach { live_links: row.int(0)?, partners: row.int(1)?, tenants: row.int(2)?, users: None })
    }

    /// Whether a suspension of users covers this one. Those of sessions and tokens are not asked.
    pub async fn is_user_suspended(&self, issuer: &str, sub: &str) -> Result<bool, StoreError> {
        Ok(load_suspended(&self.db).await?.value.covers(issuer, sub, None, None))
    }

    /// One suspension, in force or lifted.
    pub async fn suspension(&self, id: Uuid) -> Result<SuspensionRecord, StoreError> {
        let select = format!("SELECT {SUSPENSION_COLUMNS} FROM suspensions WHERE id = $1");
        let found = self.one(select, id.into(), SuspensionRecord::read).await?;
        found.ok_or_else(|| StoreError::not_found("suspension", id))
    }

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
        session.refuse_twice(&record).await?;
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
            None => {
                let sql = composed(format!("SELECT {SUSPENSION_COLUMNS} FROM suspensions WHERE id = $1"));
                let lifted =
                    session.tx.row(sql, &[id.into()]).await?.as_ref().map(SuspensionRecord::read).transpose()?;
                return Err(match lifted {
                    Some(SuspensionRecord { lifted_at: Some(at), lifted_by: Some(by), .. }) => {
                        Refusal::conflict(format!("this suspension was lifted already, at {at} by {by}")).into()
                    }
                    _ => StoreError::not_found("suspension", id),
                });
            }
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

fn parsed(subject: &str) -> Result<Uuid, Refusal> {
    subject.parse().map_err(|_| Refusal::field("suspension", "subject", "is not a uuid"))
}

fn of_subject(scope: SuspensionScope) -> bool {
    matches!(scope, SuspensionScope::User | SuspensionScope::Session | SuspensionScope::Jti)
}

/// The subject as it will be compared: uuids in their one written form.
fn canonical(input: &SuspensionInput) -> Result<String, Refusal> {
    let subject = input.subject.as_str();
    let uuid = |parsed: Option<Uuid>| {
        parsed.map(|id| id.to_string()).ok_or_else(|| Refusal::field("suspension", "subject", "is not a uuid"))
    };
    if input.issuer.is_some() && input.scope != SuspensionScope::User {
        return Err(Refusal::field("suspension", "issuer", "belongs to the suspension of a user only"));
    }
    if input.reason.trim().is_empty() || input.reason.chars().count() > 1000 {
        return Err(Refusal::field("suspension", "reason", "1 to 1000 characters"));
    }
    if let Some(fault) = plain::fault(&input.reason) {
        return Err(Refusal::field("suspension", "reason", fault));
    }
    match input.scope {
        SuspensionScope::All if subject.is_empty() => Ok(String::new()),
        SuspensionScope::All => Err(Refusal::field("suspension", "subject", "must be empty: everything is suspended")),
        SuspensionScope::Partner => uuid(subject.trim().parse::<PartnerId>().ok().map(|id| id.0)),
        SuspensionScope::Link => uuid(subject.trim().parse::<LinkId>().ok().map(|id| id.0)),
        _ if subject.is_empty() || subject.chars().count() > 512 || subject.contains('\0') => {
            Err(Refusal::field("suspension", "subject", "1 to 512 characters"))
        }
        _ => Ok(subject.to_owned()),
    }
}

impl super::Session<'_> {
    /// The one that is in force is named, so that it can be lifted.
    async fn refuse_twice(&mut self, record: &SuspensionRecord) -> Result<(), StoreError> {
        let sql = composed(format!(
            "SELECT {SUSPENSION_COLUMNS} FROM suspensions WHERE lifted_at IS NULL AND scope = $1 AND subject = $2"
        ));
        let rows = self.tx.rows(sql, &[record.scope.as_str().into(), record.subject.as_str().into()]).await?;
        for row in &rows {
            let standing = SuspensionRecord::read(row)?;
            if standing.issuer == record.issuer {
                let SuspensionRecord { id, at, by, .. } = standing;
                let message = format!("this is suspended already, since {at} by {by}; its id is `{id}`");
                return Err(Refusal::conflict(message).into());
            }
        }
        Ok(())
    }

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
