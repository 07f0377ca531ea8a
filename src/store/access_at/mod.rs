//! Who had access at a time: links as they stood then, with everything around them that their gates read.
//!
//! A link's row of then is the one that its history holds; suspensions keep their beginning and end. Tenants, partners and
//! users have no history of their own: where such a row was written since, only its present state is known, and that is
//! said beside it (`Known`). A partner that may have been active then counts as active: a review must rather name somebody
//! too many than leave somebody out. Everything is read in one snapshot, a few statements for any number of links.
//!
//! `states` reads the rows of then, `around` puts together what each link's gates read, `many` asks for many ids at once.

mod around;
mod many;
mod states;

use std::collections::{HashMap, HashSet};

use self::{
    around::Around,
    many::{by_ids, distinct},
    states::{State, parents, states},
};
pub use self::{
    around::{Known, LinkThen},
    states::TermsThen,
};
use super::{
    StoreError,
    admin::Admin,
    records::{
        PARTNER_COLUMNS, PartnerRecord, SUSPENSION_COLUMNS, SuspensionRecord, SuspensionScope, TENANT_COLUMNS,
        TenantRecord, USER_COLUMNS, UserRecord,
    },
    sql::{Tx, Value, composed},
};
use crate::domain::{LinkId, Millis, PartnerId, TenantId};

/// Whose links are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    Tenant(TenantId),
    Partner(PartnerId),
    Link(LinkId),
}

/// Everything about one side at the time.
#[derive(Clone, Debug)]
pub struct AccessAt {
    pub at: Millis,
    /// In the order of tenants, then partners' ids.
    pub links: Vec<LinkThen>,
    pub tenants: HashMap<TenantId, TenantRecord>,
    pub partners: HashMap<PartnerId, PartnerRecord>,
    /// Of the partners whose links these are; those who were known at the time.
    pub users: HashMap<PartnerId, Vec<UserRecord>>,
    /// In force at the time, oldest first.
    pub suspensions: Vec<SuspensionRecord>,
}

impl AccessAt {
    /// Whether a suspension of the user was in force.
    pub fn user_suspended(&self, user: &UserRecord) -> bool {
        self.subject_suspended(&user.issuer, &user.sub)
    }

    pub fn subject_suspended(&self, issuer: &str, sub: &str) -> bool {
        self.suspensions.iter().any(|one| {
            one.scope == SuspensionScope::User
                && one.subject == sub
                && one.issuer.as_ref().is_none_or(|named| named == issuer)
        })
    }
}

impl Admin {
    /// The links of one side as they stood at `at`. A side that does not exist is an error, not an empty answer.
    pub async fn access_at(&self, side: &Side, at: Millis) -> Result<AccessAt, StoreError> {
        let mut tx = self.db.begin_read().await?;
        let (condition, value) = match side {
            Side::Tenant(id) => ("l.managed_tenant_id", Value::Text(id.as_str())),
            Side::Partner(id) => ("l.partner_id", Value::Id(id.0)),
            Side::Link(id) => ("l.id", Value::Id(id.0)),
        };
        must_exist(&mut tx, side).await?;
        let suspensions = suspensions(&mut tx, at).await?;
        let own = states(&mut tx, condition, &[value], at).await?;
        let above = parents(&mut tx, &own, at).await?;
        let all: Vec<&State> = own.iter().chain(above.values()).collect();
        let tenant_ids: Vec<TenantId> = distinct(all.iter().map(|one| one.terms.managed_tenant_id.clone()));
        let partner_ids: Vec<PartnerId> = distinct(all.iter().map(|one| one.terms.partner_id));
        let mut tenants = HashMap::new();
        let ids = tenant_ids.iter().map(|id| Value::Text(id.as_str())).collect::<Vec<_>>();
        for row in by_ids(&mut tx, TENANT_COLUMNS, "tenants", "id", &ids).await? {
            let tenant = TenantRecord::read(&row)?;
            tenants.insert(tenant.tenant_id.clone(), tenant);
        }
        let mut partners = HashMap::new();
        let ids = partner_ids.iter().map(|id| Value::Id(id.0)).collect::<Vec<_>>();
        for row in by_ids(&mut tx, PARTNER_COLUMNS, "partners", "id", &ids).await? {
            let partner = PartnerRecord::read(&row)?;
            partners.insert(partner.partner_id, partner);
        }
        let owners: Vec<PartnerId> = distinct(own.iter().map(|one| one.terms.partner_id));
        let ids = owners.iter().map(|id| Value::Id(id.0)).collect::<Vec<_>>();
        let mut users: HashMap<PartnerId, Vec<UserRecord>> = HashMap::new();
        for row in by_ids(&mut tx, USER_COLUMNS, "partner_users", "partner_id", &ids).await? {
            let user = UserRecord::read(&row)?;
            if user.stamps.created_at <= at {
                users.entry(user.partner_id).or_default().push(user);
            }
        }
        drop(tx);
        for known in users.values_mut() {
            known.sort_by(|a, b| (&a.sub, &a.issuer).cmp(&(&b.sub, &b.issuer)));
        }
        let around =
            Around { above: &above, own: &own, tenants: &tenants, partners: &partners, overlay: &suspensions, at };
        let mut links = own.iter().map(|state| around.link(state)).collect::<Result<Vec<_>, _>>()?;
        links.sort_by(|a, b| {
            let key = |one: &LinkThen| (one.terms.managed_tenant_id.clone(), one.terms.partner_id, one.terms.id);
            key(a).cmp(&key(b))
        });
        Ok(AccessAt { at, links, tenants, partners, users, suspensions })
    }

    /// Every link delegated onward from these, with the one that it hangs on, as they stand now.
    pub async fn delegated_from(&self, links: &[LinkId]) -> Result<Vec<(LinkId, LinkId)>, StoreError> {
        let mut tx = self.db.begin_read().await?;
        let mut known: HashSet<LinkId> = links.iter().copied().collect();
        let (mut found, mut level) = (Vec::new(), links.to_vec());
        while !level.is_empty() {
            let ids: Vec<Value<'_>> = level.iter().map(|id| Value::Id(id.0)).collect();
            let rows = by_ids(&mut tx, "id, parent_link_id", "partner_tenant_links", "parent_link_id", &ids).await?;
            level = Vec::new();
            for row in &rows {
                let (child, parent) = (LinkId(row.id(0)?), LinkId(row.id(1)?));
                found.push((child, parent));
                // A ring that was written by hand ends here.
                if known.insert(child) {
                    level.push(child);
                }
            }
        }
        Ok(found)
    }

    /// Partners that have a webhook subscription: they are told of alerts without asking.
    pub async fn partners_with_webhooks(&self) -> Result<HashSet<PartnerId>, StoreError> {
        let sql = "SELECT DISTINCT partner_id FROM webhook_subscriptions";
        let rows = self.db.begin_read().await?.rows(sql, &[]).await?;
        rows.iter().map(|row| Ok(PartnerId(row.id(0)?))).collect()
    }
}

async fn must_exist(tx: &mut Tx, side: &Side) -> Result<(), StoreError> {
    let (sql, value, error) = match side {
        Side::Tenant(id) => {
            ("SELECT id FROM tenants WHERE id = $1", Value::Text(id.as_str()), StoreError::not_found("tenant", id))
        }
        Side::Partner(id) => {
            ("SELECT id FROM partners WHERE id = $1", Value::Id(id.0), StoreError::not_found("partner", id))
        }
        Side::Link(id) => {
            ("SELECT id FROM partner_tenant_links WHERE id = $1", Value::Id(id.0), StoreError::not_found("link", id))
        }
    };
    tx.row(sql, &[value]).await?.map(drop).ok_or(error)
}

async fn suspensions(tx: &mut Tx, at: Millis) -> Result<Vec<SuspensionRecord>, StoreError> {
    let sql = composed(format!(
        "SELECT {SUSPENSION_COLUMNS} FROM suspensions WHERE at <= $1 AND (lifted_at IS NULL OR lifted_at > $1) \
         ORDER BY at, id"
    ));
    tx.rows(sql, &[at.0.into()]).await?.iter().map(SuspensionRecord::read).collect()
}
