//! The links to one managed tenant as its own administrators see them: with the partner behind each.

use super::{
    Database, StoreError,
    records::{LINK_COLUMNS, LinkRecord},
    sql::{Row, Value, composed},
};
use crate::domain::{LinkId, TenantId};

/// One link with its partner.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantLink {
    pub link: LinkRecord,
    pub partner_name: String,
    pub partner_is_active: bool,
}

/// Which links of the tenant; an empty filter means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantLinkFilter {
    /// `pending`, `approved` or `rejected`.
    pub approval: Option<&'static str>,
    pub is_active: Option<bool>,
}

fn select() -> String {
    let columns: Vec<String> = LINK_COLUMNS.split(',').map(|column| format!("l.{}", column.trim())).collect();
    format!(
        "SELECT {}, p.name AS partner_name, p.is_active AS partner_is_active FROM partner_tenant_links l \
         JOIN partners p ON p.id = l.partner_id WHERE l.managed_tenant_id = $1",
        columns.join(", ")
    )
}

fn read(row: &Row) -> Result<TenantLink, StoreError> {
    Ok(TenantLink {
        link: LinkRecord::read(row)?,
        partner_name: row.text("partner_name")?,
        partner_is_active: row.flag("partner_is_active")?,
    })
}

/// A page of the tenant's links, newest first, and how many there are in all; one snapshot.
pub async fn tenant_links(
    db: &Database,
    tenant: &TenantId,
    filter: &TenantLinkFilter,
    limit: u64,
    offset: u64,
) -> Result<(Vec<TenantLink>, u64), StoreError> {
    let mut conditions = String::new();
    let mut values = vec![Value::Text(tenant.as_str())];
    if let Some(approval) = filter.approval {
        values.push(approval.into());
        conditions.push_str(&format!(" AND l.approval = ${}", values.len()));
    }
    if let Some(active) = filter.is_active {
        values.push(active.into());
        conditions.push_str(&format!(" AND l.is_active = ${}", values.len()));
    }
    let mut tx = db.begin_read().await?;
    let counted = tx
        .row(
            composed(format!(
                "SELECT CAST(count(*) AS BIGINT) FROM partner_tenant_links l WHERE l.managed_tenant_id = $1{conditions}"
            )),
            &values,
        )
        .await?;
    let total = counted.map(|row| row.int(0)).transpose()?.unwrap_or_default();
    let bound = values.len();
    let whole = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    values.extend([whole(limit), whole(offset)]);
    let sql =
        format!("{}{conditions} ORDER BY l.created_at DESC, l.id LIMIT ${} OFFSET ${}", select(), bound + 1, bound + 2);
    let rows = tx.rows(composed(sql), &values).await?;
    let links = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok((links, u64::try_from(total).unwrap_or_default()))
}

/// One link, if it is one to this tenant.
pub async fn tenant_link(db: &Database, tenant: &TenantId, id: LinkId) -> Result<Option<TenantLink>, StoreError> {
    let sql = format!("{} AND l.id = $2", select());
    let mut tx = db.begin_read().await?;
    tx.row(composed(sql), &[tenant.as_str().into(), id.0.into()]).await?.as_ref().map(read).transpose()
}
