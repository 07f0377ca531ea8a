//! Many rows at once, made by the database itself: for benches and tests of size. No history, no audit records.
//!
//! Hidden from the docs: nothing that serves people may write links past `Admin`.

use uuid::Uuid;

use super::{Database, StoreError, sql::composed};
use crate::domain::{LinkRole, Millis, PartnerId, TenantId};

/// How much to make.
#[derive(Clone, Debug)]
pub struct Fill {
    pub partners: u32,
    pub links_per_partner: u32,
    /// Shared by the partners; at least `links_per_partner`.
    pub tenants: u32,
    /// Issuer of the one user that each partner gets, `sub` being `user-<n>`.
    pub issuer: String,
    /// Role of every link.
    pub role: LinkRole,
}

/// The id of partner `n` of a fill.
pub fn partner_id(n: u32) -> PartnerId {
    PartnerId(Uuid::from_u128(0x6c69_6e6b_0000_4000_8000_0000_0000_0000 | u128::from(n)))
}

/// The id of tenant `n` of a fill; each partner's home is one of its own, `home-<n>`.
pub fn tenant_id(n: u32) -> Option<TenantId> {
    TenantId::new(&format!("tenant-{n}")).ok()
}

/// Fills an empty, migrated database. Partner `p` has its `i`-th link to tenant `(p + i) % tenants`.
pub async fn fill(db: &Database, fill: &Fill) -> Result<(), StoreError> {
    let mut tx = db.begin_write().await?;
    let postgres = tx.conn().is_postgres();
    if postgres {
        tx.conn().batch("SET LOCAL statement_timeout = 0").await?;
    }
    let hex = |n: &str| {
        if postgres { format!("lpad(to_hex({n}), 12, '0')") } else { format!("printf('%012x', {n})") }
    };
    let uuid = |prefix: &str, n: &str| {
        let text = format!("'{prefix}' || {}", hex(n));
        if postgres { format!("CAST({text} AS UUID)") } else { text }
    };
    let partner = uuid("6c696e6b-0000-4000-8000-", "p.n");
    let series = |most: &str| {
        format!(
            "(WITH RECURSIVE s (n) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT n + 1 FROM s WHERE n + 1 < {most}) SELECT n FROM s)"
        )
    };
    let role = fill.role;
    let (partners, links, tenants) =
        (i64::from(fill.partners), i64::from(fill.links_per_partner), i64::from(fill.tenants));
    let now = Millis::now().0;
    let statements = [
        format!(
            "INSERT INTO tenants (id, name, status, created_at, updated_at, created_by, updated_by) \
             SELECT 'tenant-' || n, 'Tenant ' || n, 'active', $4, $4, 'bulk', 'bulk' FROM {} AS t",
            series("$3")
        ),
        format!(
            "INSERT INTO tenants (id, name, status, created_at, updated_at, created_by, updated_by) \
             SELECT 'home-' || n, 'Home ' || n, 'active', $4, $4, 'bulk', 'bulk' FROM {} AS t",
            series("$1")
        ),
        format!(
            "INSERT INTO partners (id, name, home_tenant_id, is_active, created_at, updated_at, created_by, updated_by) \
             SELECT {partner}, 'Partner ' || p.n, 'home-' || p.n, TRUE, $4, $4, 'bulk', 'bulk' FROM {} AS p",
            series("$1")
        ),
        format!(
            "INSERT INTO partner_users (id, issuer, sub, partner_id, is_active, created_at, updated_at, created_by, updated_by) \
             SELECT {}, $5, 'user-' || p.n, {partner}, TRUE, $4, $4, 'bulk', 'bulk' FROM {} AS p",
            uuid("75736572-0000-4000-8000-", "p.n"),
            series("$1")
        ),
        format!(
            "INSERT INTO partner_tenant_links (id, partner_id, managed_tenant_id, partner_tenant_id, access_role, \
             relationship_type, start_date, is_active, notify_on_sla_breach, notify_on_billing_threshold, approval, \
             require_mfa, created_at, updated_at, created_by, updated_by) \
             SELECT {}, {partner}, 'tenant-' || ((p.n + l.n) % $3), 'home-' || p.n, '{role}', 'msp_managed', \
             $4, TRUE, FALSE, FALSE, 'approved', FALSE, $4, $4, 'bulk', 'bulk' FROM {} AS p CROSS JOIN {} AS l",
            uuid("6c6b6c6b-0000-4000-8000-", "p.n * $2 + l.n"),
            series("$1"),
            series("$2")
        ),
    ];
    for sql in statements {
        // Postgres wants every parameter used; the types are said once here.
        let sql = if postgres {
            format!("WITH given AS (SELECT $1::bigint, $2::bigint, $3::bigint, $4::bigint, $5::text) {sql}")
        } else {
            sql
        };
        tx.execute(
            composed(sql),
            &[partners.into(), links.into(), tenants.into(), now.into(), fill.issuer.as_str().into()],
        )
        .await?;
    }
    let raised = tx.row("UPDATE change_counter SET seq = seq + 1 WHERE id = 1 RETURNING seq", &[]).await?;
    let seq = raised.map_or(Ok(0), |row| row.int(0))?;
    tx.execute("INSERT INTO change_log (seq, kind, at) VALUES ($1, 'all', $2)", &[seq.into(), now.into()]).await?;
    Ok(tx.commit().await?)
}
