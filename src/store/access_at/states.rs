//! Rows of links as they stood at a time, and those above them: by their history, or by the row that was not written since.

use std::collections::{BTreeMap, HashMap, HashSet};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value as Json;

use super::many::{AT_ONCE, distinct, marks};
use crate::{
    domain::{Approval, LinkId, LinkRole, Millis, PartnerId, RelationshipType, TenantId, link_rules::MAX_PARENTS},
    store::{
        StoreError,
        records::{LINK_COLUMNS, LinkRecord},
        sql::{Row, Tx, Value, composed},
    },
};

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

/// A link's row of then.
pub(super) struct State {
    pub(super) terms: TermsThen,
    pub(super) version_now: i64,
}

/// The rows of then of all links that are meant; `condition` is a column and `values` what it is, one or several.
pub(super) async fn states(
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
pub(super) async fn parents(tx: &mut Tx, own: &[State], at: Millis) -> Result<HashMap<LinkId, State>, StoreError> {
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
