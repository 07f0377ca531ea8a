//! Links that end soon: whom to tell, and how many there are.
//!
//! A link ends when it or the first of its parents does (its window is the narrowest), so a delegated link without an end
//! of its own is found too. Links that give no access today (revoked, waiting, ended) are left out.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use uuid::Uuid;

use super::{
    Database, StoreError,
    events::{NewEvent, queue},
    records::tenant_id,
    sql::Tx,
};
use crate::domain::{About, EventType, LinkId, Millis, PartnerId, TenantId};

const DAY: i64 = 86_400_000;

/// A link that ends soon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Ending {
    pub link_id: LinkId,
    pub partner_id: PartnerId,
    pub managed_tenant_id: TenantId,
    /// Its own end or a parent's, whichever comes first.
    pub end_date: Millis,
}

impl Ending {
    /// Begun days count: what ends in an hour ends within one day.
    pub fn days_left(&self, now: Millis) -> i64 {
        (self.end_date.0 - now.0 + DAY - 1) / DAY
    }
}

/// Links that end after `now` and within so many days, the next to end first.
pub async fn ending(db: &Database, days: u32, now: Millis) -> Result<Vec<Ending>, StoreError> {
    read(&mut db.begin_read().await?, days, now).await
}

async fn read(tx: &mut Tx, days: u32, now: Millis) -> Result<Vec<Ending>, StoreError> {
    let until = now.0.saturating_add(i64::from(days) * DAY);
    // The bound ends a ring that was written by hand.
    let sql = "WITH RECURSIVE ending (link_id, end_at, level) AS (\
            SELECT id, end_date, 1 FROM partner_tenant_links \
            WHERE end_date > $1 AND end_date <= $2 AND is_active AND approval = 'approved' AND start_date <= $1 \
            UNION \
            SELECT child.id, ending.end_at, ending.level + 1 FROM partner_tenant_links child \
            JOIN ending ON child.parent_link_id = ending.link_id \
            WHERE child.is_active AND child.approval = 'approved' AND child.start_date <= $1 \
            AND (child.end_date IS NULL OR child.end_date > $1) AND ending.level < 8\
         ) SELECT l.id, l.partner_id, l.managed_tenant_id, min(e.end_at) AS end_at FROM ending e \
         JOIN partner_tenant_links l ON l.id = e.link_id \
         GROUP BY l.id, l.partner_id, l.managed_tenant_id ORDER BY end_at, l.id";
    let rows = tx.rows(sql, &[now.0.into(), until.into()]).await?;
    rows.iter()
        .map(|row| {
            Ok(Ending {
                link_id: LinkId(row.id(0)?),
                partner_id: PartnerId(row.id(1)?),
                managed_tenant_id: tenant_id("partner_tenant_links", row, "managed_tenant_id")?,
                end_date: Millis(row.int(3)?),
            })
        })
        .collect()
}

/// Announces the ends of links to webhooks: for each number of days once for each end, in the event's own transaction,
/// however many replicas look and however often they start anew. Only partners that subscribed are looked at, so that a
/// later subscriber is told too. How many links were announced.
pub async fn announce_ends(db: &Database, days: &[u32], now: Millis) -> Result<usize, StoreError> {
    let Some(most) = days.iter().copied().max() else { return Ok(0) };
    let mut tx = db.begin_read().await?;
    let subscribed = tx.rows("SELECT DISTINCT partner_id FROM webhook_subscriptions WHERE enabled", &[]).await?;
    let subscribed: HashSet<Uuid> = subscribed.iter().map(|row| row.id(0)).collect::<Result<_, _>>()?;
    if subscribed.is_empty() {
        return Ok(0);
    }
    let ends = read(&mut tx, most, now).await?;
    let sql = "SELECT link_id, end_date, days FROM link_expiry_notices WHERE end_date > $1";
    let mut noticed: BTreeMap<(Uuid, i64), Vec<i64>> = BTreeMap::new();
    for row in tx.rows(sql, &[now.0.into()]).await? {
        noticed.entry((row.id(0)?, row.int(1)?)).or_default().push(row.int(2)?);
    }
    drop(tx);
    let mut told = 0;
    for link in ends.into_iter().filter(|link| subscribed.contains(&link.partner_id.0)) {
        let noticed = noticed.get(&(link.link_id.0, link.end_date.0)).map(Vec::as_slice).unwrap_or_default();
        let due: Vec<i64> = days
            .iter()
            .map(|days| i64::from(*days))
            .filter(|days| link.end_date.0 - days * DAY <= now.0 && !noticed.contains(days))
            .collect();
        // A link that ends tomorrow and was never announced is announced once, not once for each number.
        let news = due.iter().min().is_some_and(|least| noticed.iter().all(|known| least < known));
        if !due.is_empty() {
            told += usize::from(announce(db, &link, &due, news, now).await?);
        }
    }
    Ok(told)
}

/// Forgets which ends were announced that had passed before this: they are never announced again. How many.
pub async fn forget_notices(db: &Database, before: Millis) -> Result<u64, StoreError> {
    let mut tx = db.begin_write().await?;
    let gone = tx.execute("DELETE FROM link_expiry_notices WHERE end_date < $1", &[before.0.into()]).await?;
    tx.commit().await?;
    Ok(gone)
}

/// Takes these notices, and tells where nobody else did; whether anybody is told.
async fn announce(db: &Database, link: &Ending, due: &[i64], news: bool, now: Millis) -> Result<bool, StoreError> {
    let mut tx = db.begin_write().await?;
    let mut first = true;
    for days in due {
        let sql = "INSERT INTO link_expiry_notices (link_id, end_date, days, at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (link_id, end_date, days) DO NOTHING";
        let values = [link.link_id.0.into(), link.end_date.0.into(), (*days).into(), now.0.into()];
        first &= tx.execute(sql, &values).await? == 1;
    }
    let mut told = false;
    if first && news {
        let about = (link.partner_id, link.link_id, &link.managed_tenant_id);
        let event = NewEvent::new(EventType::LinkExpiring, About::Link, about, now)
            .with("end_date", &link.end_date)?
            .with("days_left", &link.days_left(now))?;
        told = queue(&mut tx, event).await? > 0;
    }
    tx.commit().await?;
    Ok(told)
}
