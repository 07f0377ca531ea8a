//! A partner's tenants and links as they are shown: whole rows, in one snapshot.

use std::collections::HashMap;

use super::{
    Database, StoreError,
    records::{LINK_COLUMNS, LinkRecord, TENANT_COLUMNS, TenantRecord},
    sql::composed,
};
use crate::domain::PartnerId;

/// Every tenant that the partner has a link to, live or not, with that link; ascending by tenant id.
pub async fn managed_tenants(db: &Database, partner: PartnerId) -> Result<Vec<(TenantRecord, LinkRecord)>, StoreError> {
    let mut tx = db.begin_read().await?;
    let links = format!("SELECT {LINK_COLUMNS} FROM partner_tenant_links WHERE partner_id = $1");
    let links = tx.rows(composed(links), &[partner.0.into()]).await?;
    let tenants = format!(
        "SELECT {TENANT_COLUMNS} FROM tenants \
         WHERE id IN (SELECT managed_tenant_id FROM partner_tenant_links WHERE partner_id = $1)"
    );
    let tenants = tx.rows(composed(tenants), &[partner.0.into()]).await?;
    drop(tx);
    let mut by_id = HashMap::with_capacity(tenants.len());
    for row in &tenants {
        let tenant = TenantRecord::read(row)?;
        by_id.insert(tenant.tenant_id.clone(), tenant);
    }
    let mut found = Vec::with_capacity(links.len());
    for row in &links {
        let link = LinkRecord::read(row)?;
        // The foreign key holds every link to its tenant.
        if let Some(tenant) = by_id.remove(&link.managed_tenant_id) {
            found.push((tenant, link));
        }
    }
    found.sort_by(|(one, _), (other, _)| one.tenant_id.cmp(&other.tenant_id));
    Ok(found)
}
