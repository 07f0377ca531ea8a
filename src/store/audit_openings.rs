//! Which rights were used, straight from the chunks of the index: every opening of a range of time, not a page of records.
//!
//! On Postgres, where replicas have a journal each, the index holds the lines of all of them. On SQLite it points into the
//! journal on this machine, and is a moment behind it: who may read the journal itself does (`audit::sweep`).

use super::{AuditStore, StoreError, audit_index::unavailable, audit_query::candidates};
use crate::{
    audit::{
        IndexUnavailable, RecordFilter,
        sweep::{Wanted, sweep_run},
        usage::Usage,
    },
    domain::Millis,
};

/// What the index says of a range of time, and how far it knows.
#[derive(Clone, Debug, Default)]
pub struct IndexedUsage {
    pub usage: Usage,
    /// From here on nothing that was indexed is missing; `None`: nothing is indexed at all.
    pub knows_from: Option<Millis>,
    /// The newest record that is indexed.
    pub knows_until: Option<Millis>,
    /// Openings that were wanted.
    pub records: u64,
}

impl AuditStore {
    /// Whether the index holds what several journals say, and must be asked in their place.
    pub fn holds_lines(&self) -> bool {
        self.db.is_postgres()
    }

    /// What the wanted openings add up to, newest chunks first; no further chunk is read once there were `most`.
    pub async fn usage(&self, wanted: &Wanted, most: u64) -> Result<IndexedUsage, IndexUnavailable> {
        let filter = RecordFilter {
            partner_id: wanted.partner_id,
            managed_tenant_id: wanted.tenant.clone(),
            ..RecordFilter::default()
        };
        let words = filter.words();
        let range = (wanted.since.unwrap_or(Millis(i64::MIN)), wanted.until.unwrap_or(Millis(i64::MAX)));
        let mut told = self.reach().await.map_err(unavailable)?;
        let mut tx = self.db.begin_audit_read().await.map_err(unavailable)?;
        let mut last: Option<(i64, i64)> = None;
        loop {
            let places = candidates(&mut tx, range, last).await?;
            let Some(end) = places.last() else { return Ok(told) };
            last = Some((end.last_time, end.chunk));
            for place in places.iter().filter(|place| place.terms.may_have(&words)) {
                // Nothing that is left is newer than this chunk's last record.
                let behind = Some(Millis(place.last_time.saturating_add(1)));
                if told.records >= most {
                    told.knows_from = told.knows_from.max(behind);
                    return Ok(told);
                }
                let wanted = wanted.clone();
                let look = move |lines: &[u8]| {
                    let mut usage = Usage::default();
                    let seen = sweep_run(lines, &wanted, |opened| usage.see(opened))?;
                    Ok((usage, seen))
                };
                match self.look(&mut tx, place, look).await? {
                    Some((usage, seen)) => {
                        told.usage = std::mem::take(&mut told.usage).and(usage);
                        told.records += seen;
                    }
                    // Its segment was moved out of the journal.
                    None => told.knows_from = told.knows_from.max(behind),
                }
            }
        }
    }

    /// From when to when the index knows. Where the beginning of a chain was pruned, what is older is not known.
    async fn reach(&self) -> Result<IndexedUsage, StoreError> {
        let sql = "SELECT CAST(min(first_seq) AS BIGINT), CAST(min(first_time) AS BIGINT), \
             CAST(max(last_time) AS BIGINT) FROM audit_chunks GROUP BY chain_id";
        let mut reach = IndexedUsage::default();
        let (mut pruned, now): (Option<Millis>, Millis) = (None, Millis::now());
        for row in self.db.begin_audit_read().await?.rows(sql, &[]).await? {
            // A chain without a record has an empty range.
            let (first_seq, first, last) = (row.int(0)?, Millis(row.int(1)?.min(now.0)), Millis(row.int(2)?));
            if first <= last {
                reach.knows_from = Some(reach.knows_from.map_or(first, |begins| begins.min(first)));
                reach.knows_until = reach.knows_until.max(Some(last));
            }
            if first_seq > 1 {
                pruned = pruned.max(Some(first));
            }
        }
        reach.knows_from = reach.knows_from.max(pruned);
        Ok(reach)
    }
}
