//! Rows as operators see them: whole, with every stamp, under the contract's names.
//!
//! Decisions never read these; they read the compact `Portfolio`. The same serialisation is printed by `--json`, kept
//! in `link_history` and put into audit records, so a field is named once.

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{
    StoreError,
    sql::{Row, Value},
};
use crate::domain::{LinkId, LinkVersion, Millis, PartnerId, SignOff, TenantId, link_rules::LinkTerms};

/// Who wrote a row, and when; the version grows by one with each change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Stamps {
    pub version: i64,
    pub created_at: Millis,
    pub updated_at: Millis,
    pub created_by: String,
    pub updated_by: String,
}

impl Stamps {
    pub(crate) fn new(now: Millis, actor: &str) -> Self {
        Self {
            version: 1,
            created_at: now,
            updated_at: now,
            created_by: actor.to_owned(),
            updated_by: actor.to_owned(),
        }
    }

    #[must_use]
    pub(crate) fn touched(&self, now: Millis, actor: &str) -> Self {
        Self {
            version: self.version.saturating_add(1),
            created_at: self.created_at,
            updated_at: now,
            created_by: self.created_by.clone(),
            updated_by: actor.to_owned(),
        }
    }

    pub(crate) fn read(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            version: row.int("version")?,
            created_at: Millis(row.int("created_at")?),
            updated_at: Millis(row.int("updated_at")?),
            created_by: row.text("created_by")?,
            updated_by: row.text("updated_by")?,
        })
    }
}

/// A managed or home tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TenantRecord {
    pub tenant_id: TenantId,
    pub name: String,
    pub slug: Option<String>,
    pub domain: Option<String>,
    /// Its own status; does not by itself end access.
    pub status: String,
    #[serde(flatten)]
    pub stamps: Stamps,
}

/// A partner organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PartnerRecord {
    pub partner_id: PartnerId,
    pub name: String,
    pub home_tenant_id: TenantId,
    pub is_active: bool,
    #[serde(flatten)]
    pub stamps: Stamps,
}

/// A person of a partner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UserRecord {
    /// Of the row; tokens name (issuer, sub).
    pub id: Uuid,
    /// Empty: the legacy issuer without `iss`.
    pub issuer: String,
    pub sub: String,
    pub partner_id: PartnerId,
    pub username: Option<String>,
    pub is_active: bool,
    #[serde(flatten)]
    pub stamps: Stamps,
}

/// A link, whole.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct LinkRecord {
    pub id: LinkId,
    pub partner_id: PartnerId,
    pub managed_tenant_id: TenantId,
    pub partner_tenant_id: TenantId,
    #[serde(flatten)]
    pub terms: LinkTerms,
    #[serde(flatten)]
    pub sign_off: SignOff,
    #[serde(flatten)]
    pub stamps: Stamps,
}

impl LinkRecord {
    pub fn version(&self) -> LinkVersion {
        LinkVersion(self.stamps.version)
    }
}

/// One change of a link.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct HistoryRecord {
    pub link_id: LinkId,
    pub version: i64,
    /// `created`, `updated`, `reactivated`, `revoked`, `superseded` or `parent_changed`.
    pub change: String,
    pub changed_at: Millis,
    pub changed_by: String,
    pub before: Option<Json>,
    pub after: Json,
}

/// What an emergency suspension covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SuspensionScope {
    User,
    Session,
    Jti,
    Partner,
    Tenant,
    Link,
    /// All partner access.
    All,
}

impl SuspensionScope {
    pub const ALL: [Self; 7] =
        [Self::User, Self::Session, Self::Jti, Self::Partner, Self::Tenant, Self::Link, Self::All];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Session => "session",
            Self::Jti => "jti",
            Self::Partner => "partner",
            Self::Tenant => "tenant",
            Self::Link => "link",
            Self::All => "all",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// One emergency suspension, lifted or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SuspensionRecord {
    pub id: Uuid,
    pub scope: SuspensionScope,
    /// Users only; `None`: of any issuer.
    pub issuer: Option<String>,
    /// Empty for `all`.
    pub subject: String,
    pub reason: String,
    pub by: String,
    pub at: Millis,
    pub lifted_at: Option<Millis>,
    pub lifted_by: Option<String>,
}

pub(crate) const TENANT_COLUMNS: &str =
    "id, name, slug, domain, status, version, created_at, updated_at, created_by, updated_by";
pub(crate) const PARTNER_COLUMNS: &str =
    "id, name, home_tenant_id, is_active, version, created_at, updated_at, created_by, updated_by";
pub(crate) const USER_COLUMNS: &str =
    "id, issuer, sub, partner_id, username, is_active, version, created_at, updated_at, created_by, updated_by";
pub(crate) const LINK_COLUMNS: &str = "id, partner_id, managed_tenant_id, partner_tenant_id, access_role, \
     custom_permissions, relationship_type, start_date, end_date, is_active, notify_on_sla_breach, \
     notify_on_billing_threshold, billing_alert_threshold, sla_response_hours, sla_uptime_target, notes, metadata, \
     approval, allowed_cidrs, require_mfa, parent_link_id, version, created_at, updated_at, created_by, updated_by, \
     approved_by, approved_at, widened_by";
pub(crate) const SUSPENSION_COLUMNS: &str = "id, scope, issuer, subject, reason, by_actor, at, lifted_at, lifted_by";

fn damaged(table: &'static str, what: impl ToString) -> StoreError {
    StoreError::Damaged { table, what: what.to_string() }
}

/// A word of a column that has a fixed set of them.
fn word<T: std::str::FromStr<Err: ToString>>(
    table: &'static str,
    row: &Row,
    column: &'static str,
) -> Result<T, StoreError> {
    row.str(column)?.parse().map_err(|error: T::Err| damaged(table, error.to_string()))
}

/// A list of texts that may be absent.
fn names(table: &'static str, json: Option<Json>) -> Result<Option<Vec<String>>, StoreError> {
    json.map(serde_json::from_value).transpose().map_err(|error| damaged(table, error))
}

pub(crate) fn tenant_id(table: &'static str, row: &Row, column: &'static str) -> Result<TenantId, StoreError> {
    TenantId::new(row.str(column)?).map_err(|error| damaged(table, error))
}

impl TenantRecord {
    pub(crate) fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            tenant_id: tenant_id("tenants", row, "id")?,
            name: row.text("name")?,
            slug: row.maybe_text("slug")?,
            domain: row.maybe_text("domain")?,
            status: row.text("status")?,
            stamps: Stamps::read(row)?,
        })
    }
}

impl PartnerRecord {
    pub(crate) fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            partner_id: PartnerId(row.id("id")?),
            name: row.text("name")?,
            home_tenant_id: tenant_id("partners", row, "home_tenant_id")?,
            is_active: row.flag("is_active")?,
            stamps: Stamps::read(row)?,
        })
    }
}

impl UserRecord {
    pub(crate) fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id("id")?,
            issuer: row.text("issuer")?,
            sub: row.text("sub")?,
            partner_id: PartnerId(row.id("partner_id")?),
            username: row.maybe_text("username")?,
            is_active: row.flag("is_active")?,
            stamps: Stamps::read(row)?,
        })
    }
}

impl LinkRecord {
    pub(crate) fn read(row: &Row) -> Result<Self, StoreError> {
        const TABLE: &str = "partner_tenant_links";
        let hundredths = |column| Ok::<_, StoreError>(row.maybe_int(column)?.map(|whole| Decimal::new(whole, 2)));
        Ok(Self {
            id: LinkId(row.id("id")?),
            partner_id: PartnerId(row.id("partner_id")?),
            managed_tenant_id: tenant_id(TABLE, row, "managed_tenant_id")?,
            partner_tenant_id: tenant_id(TABLE, row, "partner_tenant_id")?,
            terms: LinkTerms {
                access_role: word(TABLE, row, "access_role")?,
                custom_permissions: row.json("custom_permissions")?,
                relationship_type: word(TABLE, row, "relationship_type")?,
                start_date: Millis(row.int("start_date")?),
                end_date: row.maybe_int("end_date")?.map(Millis),
                is_active: row.flag("is_active")?,
                notify_on_sla_breach: row.flag("notify_on_sla_breach")?,
                notify_on_billing_threshold: row.flag("notify_on_billing_threshold")?,
                billing_alert_threshold: hundredths("billing_alert_threshold")?,
                sla_response_hours: row.maybe_int("sla_response_hours")?,
                sla_uptime_target: hundredths("sla_uptime_target")?,
                notes: row.maybe_text("notes")?,
                metadata: row.json("metadata")?,
                approval: word(TABLE, row, "approval")?,
                allowed_cidrs: row.json("allowed_cidrs")?,
                require_mfa: row.flag("require_mfa")?,
                parent_link_id: row.maybe_id("parent_link_id")?.map(LinkId),
            },
            sign_off: SignOff {
                approved_by: row.maybe_text("approved_by")?,
                approved_at: row.maybe_int("approved_at")?.map(Millis),
                widened_by: names(TABLE, row.maybe_json("widened_by")?)?,
            },
            stamps: Stamps::read(row)?,
        })
    }

    /// The record as JSON: for history and audit.
    pub(crate) fn json(&self) -> Json {
        serde_json::to_value(self).unwrap_or(Json::Null)
    }
}

impl HistoryRecord {
    pub(crate) fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            link_id: LinkId(row.id("link_id")?),
            version: row.int("version")?,
            change: row.text("change")?,
            changed_at: Millis(row.int("changed_at")?),
            changed_by: row.text("changed_by")?,
            before: row.maybe_json("before_state")?,
            after: row.json("after_state")?,
        })
    }
}

impl SuspensionRecord {
    pub(crate) fn read(row: &Row) -> Result<Self, StoreError> {
        let scope = row.str("scope")?;
        Ok(Self {
            id: row.id("id")?,
            scope: SuspensionScope::parse(scope).ok_or_else(|| damaged("suspensions", format!("scope `{scope}`")))?,
            issuer: row.maybe_text("issuer")?,
            subject: row.text("subject")?,
            reason: row.text("reason")?,
            by: row.text("by_actor")?,
            at: Millis(row.int("at")?),
            lifted_at: row.maybe_int("lifted_at")?.map(Millis),
            lifted_by: row.maybe_text("lifted_by")?,
        })
    }
}

/// JSON columns of a link, kept alive while its values are bound.
pub(crate) struct LinkJson {
    overrides: Json,
    metadata: Json,
    cidrs: Json,
    widened_by: Option<Json>,
}

impl LinkJson {
    pub(crate) fn of(link: &LinkRecord) -> Self {
        let terms = &link.terms;
        Self {
            widened_by: link.sign_off.widened_by.as_ref().map(|names| names.iter().map(String::as_str).collect()),
            overrides: terms
                .custom_permissions
                .iter()
                .map(|(name, allow)| (name.clone(), Json::Bool(*allow)))
                .collect(),
            metadata: Json::Object(terms.metadata.clone()),
            cidrs: terms.allowed_cidrs.iter().map(|net| Json::String(net.to_string())).collect(),
        }
    }
}

/// The values of all columns but the id, in the order of `LINK_COLUMNS`.
pub(crate) fn link_values<'a>(link: &'a LinkRecord, json: &'a LinkJson) -> Vec<Value<'a>> {
    let terms = &link.terms;
    let hundredths = |amount: Option<Decimal>| {
        Value::MaybeInt(amount.and_then(|amount| {
            let mut amount = amount;
            amount.rescale(2);
            i64::try_from(amount.mantissa()).ok()
        }))
    };
    vec![
        Value::Id(link.partner_id.0),
        Value::Text(link.managed_tenant_id.as_str()),
        Value::Text(link.partner_tenant_id.as_str()),
        Value::Text(terms.access_role.as_str()),
        Value::Json(&json.overrides),
        Value::Text(terms.relationship_type.as_str()),
        Value::Int(terms.start_date.0),
        Value::MaybeInt(terms.end_date.map(|end| end.0)),
        Value::Flag(terms.is_active),
        Value::Flag(terms.notify_on_sla_breach),
        Value::Flag(terms.notify_on_billing_threshold),
        hundredths(terms.billing_alert_threshold),
        Value::MaybeInt(terms.sla_response_hours),
        hundredths(terms.sla_uptime_target),
        Value::MaybeText(terms.notes.as_deref()),
        Value::Json(&json.metadata),
        Value::Text(terms.approval.as_str()),
        Value::Json(&json.cidrs),
        Value::Flag(terms.require_mfa),
        Value::MaybeId(terms.parent_link_id.map(|id| id.0)),
        Value::Int(link.stamps.version),
        Value::Int(link.stamps.created_at.0),
        Value::Int(link.stamps.updated_at.0),
        Value::Text(&link.stamps.created_by),
        Value::Text(&link.stamps.updated_by),
        Value::MaybeText(link.sign_off.approved_by.as_deref()),
        Value::MaybeInt(link.sign_off.approved_at.map(|at| at.0)),
        Value::MaybeJson(json.widened_by.as_ref()),
    ]
}
