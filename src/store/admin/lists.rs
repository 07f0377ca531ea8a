//! Reading for operators: one row, or a page of rows in the order of their ids.

use uuid::Uuid;

use super::Admin;
use crate::{
    domain::{Approval, LinkFacts, LinkId, Millis, PartnerId, TenantId},
    store::{
        StoreError,
        ending::{Ending, ending},
        portfolio::load_link,
        records::{
            HistoryRecord, LINK_COLUMNS, LinkRecord, PARTNER_COLUMNS, PartnerRecord, SUSPENSION_COLUMNS,
            SuspensionRecord, TENANT_COLUMNS, TenantRecord, USER_COLUMNS, UserRecord,
        },
        sql::{Row, Value, composed},
    },
};

/// Most rows of one page.
const MOST_ROWS: u32 = 10_000;

/// Which rows of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub limit: u32,
    pub offset: u32,
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: 100, offset: 0 }
    }
}

/// Which links; an empty filter means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFilter {
    pub partner: Option<PartnerId>,
    pub tenant: Option<TenantId>,
    pub active: Option<bool>,
    pub approval: Option<Approval>,
}

/// A condition put together from constant pieces; the values are bound.
#[derive(Default)]
pub(super) struct Conditions<'a> {
    sql: String,
    values: Vec<Value<'a>>,
}

impl<'a> Conditions<'a> {
    pub(super) fn add(&mut self, column: &'static str, value: Option<Value<'a>>) {
        let Some(value) = value else { return };
        self.values.push(value);
        let joint = if self.sql.is_empty() { "WHERE" } else { " AND" };
        self.sql.push_str(&format!("{joint} {column} = ${}", self.values.len()));
    }
}

impl Admin {
    pub(super) async fn page<T>(
        &self,
        select: String,
        order: &'static str,
        conditions: Conditions<'_>,
        page: Page,
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let Conditions { sql, mut values } = conditions;
        let bound = values.len();
        values.push(Value::Int(page.limit.min(MOST_ROWS).into()));
        values.push(Value::Int(page.offset.into()));
        let sql = format!("{select} {sql} ORDER BY {order} LIMIT ${} OFFSET ${}", bound + 1, bound + 2);
        let mut tx = self.db.begin_read().await?;
        tx.rows(composed(sql), &values).await?.iter().map(read).collect()
    }

    pub(super) async fn one<T>(
        &self,
        select: String,
        value: Value<'_>,
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut tx = self.db.begin_read().await?;
        tx.row(composed(select), &[value]).await?.as_ref().map(read).transpose()
    }

    pub async fn tenant(&self, id: &TenantId) -> Result<TenantRecord, StoreError> {
        let select = format!("SELECT {TENANT_COLUMNS} FROM tenants WHERE id = $1");
        let found = self.one(select, id.as_str().into(), TenantRecord::read).await?;
        found.ok_or_else(|| StoreError::not_found("tenant", id))
    }

    pub async fn tenants(&self, page: Page) -> Result<Vec<TenantRecord>, StoreError> {
        let select = format!("SELECT {TENANT_COLUMNS} FROM tenants");
        self.page(select, "id", Conditions::default(), page, TenantRecord::read).await
    }

    pub async fn partner(&self, id: PartnerId) -> Result<PartnerRecord, StoreError> {
        let select = format!("SELECT {PARTNER_COLUMNS} FROM partners WHERE id = $1");
        let found = self.one(select, id.0.into(), PartnerRecord::read).await?;
        found.ok_or_else(|| StoreError::not_found("partner", id))
    }

    pub async fn partners(&self, page: Page) -> Result<Vec<PartnerRecord>, StoreError> {
        let select = format!("SELECT {PARTNER_COLUMNS} FROM partners");
        self.page(select, "id", Conditions::default(), page, PartnerRecord::read).await
    }

    pub async fn user(&self, id: Uuid) -> Result<UserRecord, StoreError> {
        let select = format!("SELECT {USER_COLUMNS} FROM partner_users WHERE id = $1");
        let found = self.one(select, id.into(), UserRecord::read).await?;
        found.ok_or_else(|| StoreError::not_found("user", id))
    }

    /// The user that a token names.
    pub async fn user_by_subject(&self, issuer: &str, sub: &str) -> Result<Option<UserRecord>, StoreError> {
        let sql = format!("SELECT {USER_COLUMNS} FROM partner_users WHERE issuer = $1 AND sub = $2");
        let mut tx = self.db.begin_read().await?;
        tx.row(composed(sql), &[issuer.into(), sub.into()]).await?.as_ref().map(UserRecord::read).transpose()
    }

    pub async fn users(&self, partner: Option<PartnerId>, page: Page) -> Result<Vec<UserRecord>, StoreError> {
        let mut conditions = Conditions::default();
        conditions.add("partner_id", partner.map(|id| Value::Id(id.0)));
        let select = format!("SELECT {USER_COLUMNS} FROM partner_users");
        self.page(select, "id", conditions, page, UserRecord::read).await
    }

    pub async fn link(&self, id: LinkId) -> Result<LinkRecord, StoreError> {
        let select = format!("SELECT {LINK_COLUMNS} FROM partner_tenant_links WHERE id = $1");
        let found = self.one(select, id.0.into(), LinkRecord::read).await?;
        found.ok_or_else(|| StoreError::not_found("link", id))
    }

    /// The link with everything that its gates read: what it amounts to at this moment.
    pub async fn standing(&self, id: LinkId) -> Result<LinkFacts, StoreError> {
        load_link(&self.db, id).await?.ok_or_else(|| StoreError::not_found("link", id))
    }

    /// See [`ending`].
    pub async fn ending(&self, days: u32, now: Millis) -> Result<Vec<Ending>, StoreError> {
        ending(&self.db, days, now).await
    }

    pub async fn links(&self, filter: &LinkFilter, page: Page) -> Result<Vec<LinkRecord>, StoreError> {
        let mut conditions = Conditions::default();
        conditions.add("partner_id", filter.partner.map(|id| Value::Id(id.0)));
        conditions.add("managed_tenant_id", filter.tenant.as_ref().map(|id| id.as_str().into()));
        conditions.add("is_active", filter.active.map(Value::Flag));
        conditions.add("approval", filter.approval.map(|approval| approval.as_str().into()));
        let select = format!("SELECT {LINK_COLUMNS} FROM partner_tenant_links");
        self.page(select, "id", conditions, page, LinkRecord::read).await
    }

    /// Every change of a link, oldest first.
    pub async fn history(&self, id: LinkId, page: Page) -> Result<Vec<HistoryRecord>, StoreError> {
        let mut conditions = Conditions::default();
        conditions.add("link_id", Some(Value::Id(id.0)));
        let select = "SELECT link_id, version, change, changed_at, changed_by, before_state, after_state \
             FROM link_history"
            .to_owned();
        self.page(select, "version", conditions, page, HistoryRecord::read).await
    }

    /// Emergency suspensions in force, oldest first.
    pub async fn suspensions(&self, page: Page) -> Result<Vec<SuspensionRecord>, StoreError> {
        let select = format!("SELECT {SUSPENSION_COLUMNS} FROM suspensions WHERE lifted_at IS NULL");
        self.page(select, "at, id", Conditions::default(), page, SuspensionRecord::read).await
    }

    /// Those that were lifted too.
    pub async fn all_suspensions(&self, page: Page) -> Result<Vec<SuspensionRecord>, StoreError> {
        let select = format!("SELECT {SUSPENSION_COLUMNS} FROM suspensions");
        self.page(select, "at, id", Conditions::default(), page, SuspensionRecord::read).await
    }
}
