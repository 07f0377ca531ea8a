//! Who had access at a time: links as they stood then, with everything around them that their gates read.
//!
//! A link's row of then is the one that its history holds; suspensions keep their beginning and end. Tenants, partners and
//! users have no history of their own: where such a row was written since, only its present state is known, and that is
//! said beside it (`Known`). A partner that may have been active then counts as active: a review must rather name somebody
//! too many than leave somebody out. Everything is read in one snapshot, a few statements for any number of links.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value as Json;
use uuid::Uuid;

use super::{
    StoreError,
    admin::Admin,
    records::{
        LINK_COLUMNS, LinkRecord, PARTNER_COLUMNS, PartnerRecord, SUSPENSION_COLUMNS, Stamps, SuspensionRecord,
        SuspensionScope, TENANT_COLUMNS, TenantRecord, USER_COLUMNS, UserRecord,
    },
    sql::{Row, Tx, Value, composed},
};
use crate::domain::{
    Approval, Link, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, PartnerId, RelationshipType, TenantId,
    facts::Ancestor,
    link_rules::{MAX_PARENTS, expand_overrides},
};

/// Ids of one statement.
const AT_ONCE: usize = 400;

/// Whose links are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    Tenant(TenantId),
    Partner(PartnerId),
    Link(LinkId),
}

/// Where a fact comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "KnownAsOf")]
pub enum Known {
    /// So it was then.
    Then,
    /// The row was written since: so it is now.
    Now,
}

impl Known {
    /// Of a row without a history.
    pub fn of(stamps: &Stamps, at: Millis) -> Self {
        if stamps.updated_at <= at { Self::Then } else { Self::Now }
    }
}

/// A link's row as it was written, as far as access is concerned.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TermsThen {
    pub id: LinkId,
    pub partner_id: PartnerId,
    pub managed_tenant_id: TenantId,
    pub access_role: LinkRole,
    #[serde(default)]
    pub custom_permissions: BTreeMap<String, bool>,
    pub relationship_type: RelationshipType,
    pub start_date: Millis,
    pub end_date: Option<Millis>,
    pub is_active: bool,
    pub approval: Approval,
    #[serde(default)]
    pub allowed_cidrs: Vec<IpNet>,
    pub require_mfa: bool,
    pub parent_link_id: Option<LinkId>,
    pub version: i64,
    pub created_at: Millis,
    pub updated_at: Millis,
    pub created_by: String,
    pub updated_by: String,
    /// `None` while the terms waited, and for rows older than this field.
    pub approved_by: Option<String>,
    pub approved_at: Option<Millis>,
    pub widened_by: Option<Vec<String>>,
}

/// One link at the time.
#[derive(Clone, Debug)]
pub struct LinkThen {
    pub terms: TermsThen,
    /// What its gates read.
    pub facts: LinkFacts,
    /// The suspension in force, of the link itself or one above it.
    pub suspended_by: Option<Uuid>,
    pub version_now: i64,
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

fn distinct<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

/// Rows whose `column` is one of these, in pieces that both databases take.
async fn by_ids(
    tx: &mut Tx,
    columns: &'static str,
    table: &'static str,
    column: &'static str,
    ids: &[Value<'_>],
) -> Result<Vec<Row>, StoreError> {
    let mut found = Vec::new();
    for some in ids.chunks(AT_ONCE) {
        let sql = format!("SELECT {columns} FROM {table} WHERE {column} IN ({})", marks(1, some.len()));
        found.extend(tx.rows(composed(sql), some).await?);
    }
    Ok(found)
}

fn marks(first: usize, count: usize) -> String {
    (first..first + count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}

async fn suspensions(tx: &mut Tx, at: Millis) -> Result<Vec<SuspensionRecord>, StoreError> {
    let sql = composed(format!(
        "SELECT {SUSPENSION_COLUMNS} FROM suspensions WHERE at <= $1 AND (lifted_at IS NULL OR lifted_at > $1) \
         ORDER BY at, id"
    ));
    tx.rows(sql, &[at.0.into()]).await?.iter().map(SuspensionRecord::read).collect()
}

/// A link's row of then.
struct State {
    terms: TermsThen,
    version_now: i64,
}

/// The rows of then of all links that are meant; `condition` is a column and `values` what it is, one or several.
async fn states(
    tx: &mut Tx,
    condition: &'static str,
    values: &[Value<'_>],
    at: Millis,
) -> Result<Vec<State>, StoreError> {
    let columns: Vec<String> = LINK_COLUMNS.split(',').map(|column| format!("l.{}", column.trim())).collect();
    let sql = composed(format!(
        "SELECT {}, h.after_state, h.version AS version_then FROM partner_tenant_links l \
         LEFT JOIN link_history h ON h.link_id = l.id AND h.version = \
         (SELECT max(v.version) FROM link_history v WHERE v.link_id = l.id AND v.changed_at <= $1) \
         WHERE {condition} IN ({})",
        columns.join(", "),
        marks(2, values.len())
    ));
    let values: Vec<Value<'_>> = std::iter::once(Value::Int(at.0)).chain(values.iter().copied()).collect();
    let rows = tx.rows(sql, &values).await?;
    let states = rows.iter().map(|row| state(row, at));
    states.filter_map(Result::transpose).collect()
}

/// `None`: there was no such link yet.
fn state(row: &Row, at: Millis) -> Result<Option<State>, StoreError> {
    let now = LinkRecord::read(row)?;
    let version_now = now.stamps.version;
    let then: Option<Json> = row.maybe_json("after_state")?;
    let damaged = |what: String| StoreError::Damaged { table: "link_history", what };
    let json = match then {
        // Not written since: the row itself, which is what decisions read.
        _ if now.stamps.updated_at <= at => now.json(),
        Some(json) => json,
        None if now.stamps.created_at > at => return Ok(None),
        None => return Err(damaged(format!("link `{}` has no history from before {at}", now.id))),
    };
    let terms: TermsThen =
        serde_json::from_value(json).map_err(|error| damaged(format!("a state of link `{}`: {error}", now.id)))?;
    Ok(Some(State { terms, version_now }))
}

/// All links above, level by level.
async fn parents(tx: &mut Tx, own: &[State], at: Millis) -> Result<HashMap<LinkId, State>, StoreError> {
    let known: HashSet<LinkId> = own.iter().map(|one| one.terms.id).collect();
    let mut above: HashMap<LinkId, State> = HashMap::new();
    let mut wanted = distinct(own.iter().filter_map(|one| one.terms.parent_link_id));
    for _ in 0..=MAX_PARENTS {
        wanted.retain(|id| !known.contains(id) && !above.contains_key(id));
        if wanted.is_empty() {
            break;
        }
        let mut next = Vec::new();
        for some in wanted.chunks(AT_ONCE) {
            let ids: Vec<Value<'_>> = some.iter().map(|id| Value::Id(id.0)).collect();
            for state in states(tx, "l.id", &ids, at).await? {
                next.extend(state.terms.parent_link_id);
                above.insert(state.terms.id, state);
            }
        }
        wanted = distinct(next.into_iter());
    }
    Ok(above)
}

/// What a link's facts are put together from.
struct Around<'a> {
    above: &'a HashMap<LinkId, State>,
    own: &'a [State],
    tenants: &'a HashMap<TenantId, TenantRecord>,
    partners: &'a HashMap<PartnerId, PartnerRecord>,
    overlay: &'a [SuspensionRecord],
    at: Millis,
}

impl Around<'_> {
    fn link(&self, state: &State) -> Result<LinkThen, StoreError> {
        let terms = &state.terms;
        let mut ancestors = Vec::new();
        let mut suspended_by = self.suspension(terms);
        let suspended = suspended_by.is_some();
        let (mut next, mut broken) = (terms.parent_link_id, false);
        while let Some(id) = next {
            let parent = self.above.get(&id).or_else(|| self.own.iter().find(|one| one.terms.id == id));
            // As where decisions are made: parents that cannot be followed leave the link closed.
            let Some(parent) = parent.filter(|_| ancestors.len() < MAX_PARENTS) else {
                broken = true;
                break;
            };
            let covered = self.suspension(&parent.terms);
            ancestors.push(Ancestor {
                link: link(&parent.terms),
                partner_active: self.partner_active(parent.terms.partner_id)?,
                suspended: covered.is_some(),
            });
            suspended_by = suspended_by.or(covered);
            next = parent.terms.parent_link_id;
        }
        let tenant = self.tenants.get(&terms.managed_tenant_id).ok_or_else(|| missing("tenants"))?;
        let facts = LinkFacts {
            link: link(terms),
            partner_active: self.partner_active(terms.partner_id)?,
            suspended: suspended || broken,
            tenant_status: Arc::from(tenant.status.as_str()),
            ancestors: ancestors.into_boxed_slice(),
        };
        Ok(LinkThen { terms: terms.clone(), facts, suspended_by, version_now: state.version_now })
    }

    fn partner_active(&self, id: PartnerId) -> Result<bool, StoreError> {
        let partner = self.partners.get(&id).ok_or_else(|| missing("partners"))?;
        Ok(partner.is_active || Known::of(&partner.stamps, self.at) == Known::Now)
    }

    fn suspension(&self, terms: &TermsThen) -> Option<Uuid> {
        let covers = |one: &&SuspensionRecord| match one.scope {
            SuspensionScope::All => true,
            SuspensionScope::Partner => one.subject == terms.partner_id.to_string(),
            SuspensionScope::Tenant => one.subject == terms.managed_tenant_id.as_str(),
            SuspensionScope::Link => one.subject == terms.id.to_string(),
            SuspensionScope::User | SuspensionScope::Session | SuspensionScope::Jti => false,
        };
        self.overlay.iter().find(covers).map(|one| one.id)
    }
}

fn missing(table: &'static str) -> StoreError {
    StoreError::Damaged { table, what: "a row that a link names is not there".to_owned() }
}

fn link(terms: &TermsThen) -> Link {
    let (granted, denied) =
        expand_overrides(terms.custom_permissions.iter().map(|(name, allow)| (name.as_str(), *allow)));
    Link {
        id: terms.id,
        partner_id: terms.partner_id,
        tenant_id: terms.managed_tenant_id.clone(),
        role: terms.access_role,
        granted,
        denied,
        approval: terms.approval,
        is_active: terms.is_active,
        start: terms.start_date,
        end: terms.end_date,
        allowed_cidrs: terms.allowed_cidrs.clone().into_boxed_slice(),
        require_mfa: terms.require_mfa,
        version: LinkVersion(terms.version),
    }
}
