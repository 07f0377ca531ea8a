//! Loading what the request path needs: a partner's portfolio, a member, and the suspended subjects.
//!
//! Invariant: everything of one load is read in one snapshot, together with the change counter, so `as_of` says exactly
//! which changes are in it. Whatever in a row cannot be understood closes the link rather than opening it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use ipnet::IpNet;
use uuid::Uuid;

use super::{
    Database, StoreError,
    records::tenant_id,
    sql::{Row, Tx, Value, composed},
};
use crate::domain::{
    Link, LinkFacts, LinkId, LinkVersion, Member, Millis, Partner, PartnerId, PermissionSet, Portfolio, TenantId,
    facts::Ancestor,
    link_rules::{MAX_PARENTS, expand_overrides},
};

/// A value and the change that it is as of.
#[derive(Debug)]
pub(crate) struct Loaded<T> {
    pub(crate) as_of: u64,
    pub(crate) value: T,
}

const TABLE: &str = "partner_tenant_links";

/// Rows decoded between two points where other tasks of the runtime may run.
const ROWS_AT_ONCE: usize = 2_048;

/// What a decision reads of a link, in the order that `link` decodes.
macro_rules! link_columns {
    () => {
        "l.id, l.partner_id, l.managed_tenant_id, l.access_role, l.custom_permissions, l.approval, l.is_active, \
         l.start_date, l.end_date, l.allowed_cidrs, l.require_mfa, l.version"
    };
}

/// The first column after those of `link_columns!`.
const NEXT: usize = 12;

pub(crate) async fn counter(tx: &mut Tx) -> Result<u64, StoreError> {
    let row = tx.row("SELECT seq FROM change_counter WHERE id = 1", &[]).await?;
    let row = row.ok_or_else(|| StoreError::NotMigrated("the change counter has no row".to_owned()))?;
    Ok(u64::try_from(row.int(0)?).unwrap_or_default())
}

/// The partner with all its links, live or not; `None` where there is no such partner.
pub(crate) async fn load_portfolio(db: Database, partner: PartnerId) -> Result<Loaded<Option<Portfolio>>, StoreError> {
    let mut tx = db.begin_read().await?;
    let as_of = counter(&mut tx).await?;
    let sql = "SELECT name, home_tenant_id, is_active FROM partners WHERE id = $1";
    let Some(row) = tx.row(sql, &[partner.0.into()]).await? else {
        return Ok(Loaded { as_of, value: None });
    };
    let overlay = Overlay::load(&mut tx).await?;
    let partner = Partner {
        id: partner,
        name: row.str(0)?.into(),
        home_tenant_id: tenant_id("partners", &row, "home_tenant_id")?,
        active: row.flag(2)?,
        suspended: overlay.all || overlay.partners.contains(&partner.to_string()),
    };
    let ancestors = load_ancestors(&mut tx, OF_PARTNER, partner.id.0.into(), &overlay).await?;
    let rows = tx
        .rows(
            concat!(
                "SELECT ",
                link_columns!(),
                ", t.status, l.parent_link_id FROM partner_tenant_links l \
                 JOIN tenants t ON t.id = l.managed_tenant_id WHERE l.partner_id = $1"
            ),
            &[partner.id.0.into()],
        )
        .await?;
    // The snapshot is no longer needed; decoding many rows takes a while.
    drop(tx);
    let links = decode_links(rows, &partner, &overlay, ancestors).await?;
    Ok(Loaded { as_of, value: Some(Portfolio { partner, links, as_of }) })
}

/// One link with all that its gates read, for operators; `None` where there is no such link.
pub(crate) async fn load_link(db: &Database, id: LinkId) -> Result<Option<LinkFacts>, StoreError> {
    let mut tx = db.begin_read().await?;
    let sql = concat!(
        "SELECT ",
        link_columns!(),
        ", t.status, l.parent_link_id, p.is_active AS partner_active FROM partner_tenant_links l \
         JOIN tenants t ON t.id = l.managed_tenant_id JOIN partners p ON p.id = l.partner_id WHERE l.id = $1"
    );
    let Some(row) = tx.row(sql, &[id.0.into()]).await? else { return Ok(None) };
    let overlay = Overlay::load(&mut tx).await?;
    let mut ancestors = load_ancestors(&mut tx, OF_LINK, id.0.into(), &overlay).await?;
    standing(&row, &overlay, &mut ancestors).map(Some)
}

/// The links to one tenant with all that their gates read: for its own administrators.
pub async fn load_tenant_facts(db: &Database, tenant: &TenantId) -> Result<HashMap<LinkId, LinkFacts>, StoreError> {
    let mut tx = db.begin_read().await?;
    let sql = concat!(
        "SELECT ",
        link_columns!(),
        ", t.status, l.parent_link_id, p.is_active AS partner_active FROM partner_tenant_links l \
         JOIN tenants t ON t.id = l.managed_tenant_id JOIN partners p ON p.id = l.partner_id \
         WHERE l.managed_tenant_id = $1"
    );
    let rows = tx.rows(sql, &[tenant.as_str().into()]).await?;
    let overlay = Overlay::load(&mut tx).await?;
    let mut ancestors = load_ancestors(&mut tx, OF_TENANT, tenant.as_str().into(), &overlay).await?;
    drop(tx);
    let facts = rows.iter().map(|row| {
        let facts = standing(row, &overlay, &mut ancestors)?;
        Ok((facts.link.id, facts))
    });
    facts.collect()
}

/// A row of `link_columns!`, then the tenant's status, the parent and whether the partner is active.
fn standing(row: &Row, overlay: &Overlay, ancestors: &mut HashMap<Uuid, Chain>) -> Result<LinkFacts, StoreError> {
    let link = link(row)?;
    let chain = match row.maybe_id(NEXT + 1)? {
        Some(_) => ancestors.remove(&link.id.0).unwrap_or_else(Chain::broken),
        None => Chain::default(),
    };
    Ok(LinkFacts {
        partner_active: row.flag(NEXT + 2)?,
        suspended: chain.broken || overlay.covers(&link),
        tenant_status: row.str(NEXT)?.into(),
        ancestors: chain.parents.into_boxed_slice(),
        link,
    })
}

async fn decode_links(
    rows: Vec<Row>,
    partner: &Partner,
    overlay: &Overlay,
    mut ancestors: HashMap<Uuid, Chain>,
) -> Result<HashMap<TenantId, Arc<LinkFacts>, ahash::RandomState>, StoreError> {
    let mut links = HashMap::with_capacity_and_hasher(rows.len(), ahash::RandomState::new());
    let mut statuses: HashMap<String, Arc<str>> = HashMap::new();
    for (at, row) in rows.iter().enumerate() {
        if at % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        let link = link(row)?;
        let status = row.str(NEXT)?;
        let tenant_status = match statuses.get(status) {
            Some(known) => Arc::clone(known),
            None => Arc::clone(statuses.entry(status.to_owned()).or_insert_with(|| status.into())),
        };
        let chain = match row.maybe_id(NEXT + 1)? {
            Some(_) => ancestors.remove(&link.id.0).unwrap_or_else(Chain::broken),
            None => Chain::default(),
        };
        if chain.broken {
            tracing::error!(link = %link.id, "the parents of a delegated link cannot be followed: it stays closed");
        }
        let facts = LinkFacts {
            partner_active: partner.active,
            suspended: chain.broken || overlay.covers(&link),
            tenant_status,
            ancestors: chain.parents.into_boxed_slice(),
            link,
        };
        links.insert(facts.link.tenant_id.clone(), Arc::new(facts));
    }
    Ok(links)
}

fn link(row: &Row) -> Result<Link, StoreError> {
    let damaged = |what: String| StoreError::Damaged { table: TABLE, what };
    let role = row.str(3)?.parse().map_err(|error| damaged(format!("{error}")))?;
    let approval = row.str(5)?.parse().map_err(|error| damaged(format!("{error}")))?;
    let (granted, denied) = overrides(row)?;
    let cidrs: Vec<IpNet> = row.json(9)?;
    Ok(Link {
        id: LinkId(row.id(0)?),
        partner_id: PartnerId(row.id(1)?),
        tenant_id: tenant_id(TABLE, row, "managed_tenant_id")?,
        role,
        granted,
        denied,
        approval,
        is_active: row.flag(6)?,
        start: Millis(row.int(7)?),
        end: row.maybe_int(8)?.map(Millis),
        allowed_cidrs: cidrs.into_boxed_slice(),
        require_mfa: row.flag(10)?,
        version: LinkVersion(row.int(11)?),
    })
}

fn overrides(row: &Row) -> Result<(PermissionSet, PermissionSet), StoreError> {
    let named: BTreeMap<String, bool> = row.json(4)?;
    Ok(expand_overrides(named.iter().map(|(name, allow)| (name.as_str(), *allow))))
}

/// The parents of one link, nearest first.
#[derive(Default)]
struct Chain {
    parents: Vec<Ancestor>,
    /// Longer than the rules allow, so perhaps a ring: written by hand, and never followed.
    broken: bool,
}

impl Chain {
    fn broken() -> Self {
        Self { parents: Vec::new(), broken: true }
    }
}

/// Whose parents are looked for: `$1` is a partner, a link or a tenant.
const OF_PARTNER: &str = "partner_id = $1";
const OF_LINK: &str = "id = $1";
const OF_TENANT: &str = "managed_tenant_id = $1";

/// The parents of all delegated links that are meant, by the id of the link.
async fn load_ancestors(
    tx: &mut Tx,
    of: &'static str,
    id: Value<'_>,
    overlay: &Overlay,
) -> Result<HashMap<Uuid, Chain>, StoreError> {
    let most = i64::try_from(MAX_PARENTS).unwrap_or_default();
    let rows = tx
        .rows(
            composed(format!(
                "WITH RECURSIVE chain (child, level, id) AS (\
                    SELECT id, 1, parent_link_id FROM partner_tenant_links \
                    WHERE {of} AND parent_link_id IS NOT NULL \
                    UNION ALL \
                    SELECT chain.child, chain.level + 1, parent.parent_link_id FROM chain \
                    JOIN partner_tenant_links parent ON parent.id = chain.id \
                    WHERE parent.parent_link_id IS NOT NULL AND chain.level <= $2\
                 ) SELECT {}, chain.child, p.is_active AS partner_active FROM chain \
                 JOIN partner_tenant_links l ON l.id = chain.id JOIN partners p ON p.id = l.partner_id \
                 ORDER BY chain.child, chain.level",
                link_columns!()
            )),
            &[id, Value::Int(most)],
        )
        .await?;
    let mut chains: HashMap<Uuid, Chain> = HashMap::new();
    for row in &rows {
        let link = link(row)?;
        let chain = chains.entry(row.id(NEXT)?).or_default();
        let ancestor = Ancestor { partner_active: row.flag(NEXT + 1)?, suspended: overlay.covers(&link), link };
        chain.parents.push(ancestor);
        chain.broken = chain.parents.len() > MAX_PARENTS;
    }
    Ok(chains)
}

/// Emergency suspensions of partners, tenants, links and everything.
#[derive(Debug, Default)]
struct Overlay {
    all: bool,
    partners: HashSet<String>,
    tenants: HashSet<String>,
    links: HashSet<String>,
}

impl Overlay {
    async fn load(tx: &mut Tx) -> Result<Self, StoreError> {
        let sql = "SELECT scope, subject FROM suspensions WHERE lifted_at IS NULL \
             AND scope IN ('partner', 'tenant', 'link', 'all')";
        let mut overlay = Self::default();
        for row in tx.rows(sql, &[]).await? {
            let subject = row.text(1)?;
            match row.str(0)? {
                "partner" => overlay.partners.insert(subject),
                "tenant" => overlay.tenants.insert(subject),
                "link" => overlay.links.insert(subject),
                _ => {
                    overlay.all = true;
                    continue;
                }
            };
        }
        Ok(overlay)
    }

    fn covers(&self, link: &Link) -> bool {
        self.all
            || (!self.tenants.is_empty() && self.tenants.contains(link.tenant_id.as_str()))
            || (!self.partners.is_empty() && self.partners.contains(&link.partner_id.to_string()))
            || (!self.links.is_empty() && self.links.contains(&link.id.to_string()))
    }
}

/// Whom a token's issuer and subject name; `None` where no partner knows them.
pub(crate) async fn load_member(
    db: Database,
    issuer: Box<str>,
    sub: Box<str>,
) -> Result<Loaded<Option<Member>>, StoreError> {
    let mut tx = db.begin_read().await?;
    let as_of = counter(&mut tx).await?;
    let sql = "SELECT partner_id, is_active FROM partner_users WHERE issuer = $1 AND sub = $2";
    let row = tx.row(sql, &[Value::Text(&issuer), Value::Text(&sub)]).await?;
    let value = match row {
        Some(row) => Some(Member { partner_id: PartnerId(row.id(0)?), active: row.flag(1)? }),
        None => None,
    };
    Ok(Loaded { as_of, value })
}

/// Emergency suspensions of users, sessions and tokens: asked at every request, home requests too.
#[derive(Debug, Default)]
pub(crate) struct SuspendedSubjects {
    /// Users of any issuer.
    subs: HashSet<String>,
    users: HashMap<String, HashSet<String>>,
    sessions: HashSet<String>,
    jtis: HashSet<String>,
}

impl SuspendedSubjects {
    pub(crate) fn covers(&self, issuer: &str, sub: &str, session: Option<&str>, jti: Option<&str>) -> bool {
        let has =
            |set: &HashSet<String>, word: Option<&str>| !set.is_empty() && word.is_some_and(|word| set.contains(word));
        has(&self.subs, Some(sub))
            || (!self.users.is_empty() && self.users.get(issuer).is_some_and(|subs| subs.contains(sub)))
            || has(&self.sessions, session)
            || has(&self.jtis, jti)
    }

    pub(crate) fn covers_token(&self, id: &str) -> bool {
        self.jtis.contains(id)
    }
}

pub(crate) async fn load_suspended(db: &Database) -> Result<Loaded<SuspendedSubjects>, StoreError> {
    let mut tx = db.begin_read().await?;
    let as_of = counter(&mut tx).await?;
    let sql = "SELECT scope, issuer, subject FROM suspensions WHERE lifted_at IS NULL \
         AND scope IN ('user', 'session', 'jti')";
    let mut value = SuspendedSubjects::default();
    for row in tx.rows(sql, &[]).await? {
        let subject = row.text(2)?;
        match (row.str(0)?, row.maybe_text(1)?) {
            ("session", _) => value.sessions.insert(subject),
            ("jti", _) => value.jtis.insert(subject),
            (_, Some(issuer)) => value.users.entry(issuer).or_default().insert(subject),
            (_, None) => value.subs.insert(subject),
        };
    }
    Ok(Loaded { as_of, value })
}
