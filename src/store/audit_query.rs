//! Asking the audit index: newest first, lot by lot.
//!
//! Lots are taken by their latest time. A lot whose filter says "certainly not" is skipped; in the others the columns
//! narrow the rows down, and `RecordFilter::matches` has the last word, so that index and journal answer by one rule.
//! The walk ends when no lot that is left can hold anything newer than what was found.

use super::{
    AuditStore, StoreError,
    audit_index::{read, unavailable},
    audit_lots::{STRIDE, Terms},
    sql::{Tx, Value, composed},
};
use crate::audit::{IndexUnavailable, Record, RecordFilter, RecordSource};

/// Most records of one answer, whatever is asked for.
const MOST_RECORDS: usize = 10_000;
/// Most records that a page may lie behind the newest one.
const MOST_DEPTH: usize = 100_000;
/// Lots whose filters are read at once: two mebibytes.
const LOTS_AT_ONCE: i64 = 64;

/// A page so deep is a walk through everything: a time range finds it at once.
#[derive(Debug, thiserror::Error)]
#[error("at most {MOST_DEPTH} records can be skipped: narrow the question by time instead")]
struct TooDeep;

impl RecordSource for AuditStore {
    async fn query(&self, filter: &RecordFilter) -> Result<Vec<Record>, IndexUnavailable> {
        if filter.offset > MOST_DEPTH {
            return Err(IndexUnavailable::new(TooDeep));
        }
        let limit = filter.limit.unwrap_or(MOST_RECORDS).min(MOST_RECORDS);
        let mut tx = self.db.begin_audit_read().await.map_err(unavailable)?;
        let found = match filter.id {
            Some(_) => by_id(&mut tx, filter).await,
            None => walk(&mut tx, filter, filter.offset + limit).await,
        };
        Ok(found.map_err(unavailable)?.into_iter().skip(filter.offset).take(limit).collect())
    }
}

async fn by_id(tx: &mut Tx, filter: &RecordFilter) -> Result<Vec<Record>, StoreError> {
    let Some(id) = filter.id else { return Ok(Vec::new()) };
    let rows = tx.rows("SELECT body FROM audit_records WHERE id = $1", &[id.0.into()]).await?;
    let mut found = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    found.retain(|record| filter.matches(record));
    Ok(found)
}

/// One candidate, in the order of lots.
struct Candidate {
    lot: i64,
    last_time: i64,
    may_match: bool,
}

/// The newest `wanted` records that match.
async fn walk(tx: &mut Tx, filter: &RecordFilter, wanted: usize) -> Result<Vec<Record>, StoreError> {
    let mut found: Vec<(i64, i64, Record)> = Vec::new();
    let mut last: Option<(i64, i64)> = None;
    loop {
        let lots = candidates(tx, filter, last).await?;
        let Some(end) = lots.last() else { break };
        last = Some((end.last_time, end.lot));
        for lot in &lots {
            // Nothing in this lot or behind it is newer than what there is.
            let full =
                wanted.checked_sub(1).and_then(|at| found.get(at)).is_some_and(|(time, ..)| lot.last_time < *time);
            if full || wanted == 0 {
                found.truncate(wanted);
                return Ok(found.into_iter().map(|(_, _, record)| record).collect());
            }
            if lot.may_match {
                found.extend(rows(tx, filter, lot.lot, wanted).await?);
                found.sort_by_key(|(time, n, _)| std::cmp::Reverse((*time, *n)));
                found.truncate(wanted);
            }
        }
    }
    Ok(found.into_iter().map(|(_, _, record)| record).collect())
}

/// The next lots behind `last`, latest first.
async fn candidates(
    tx: &mut Tx,
    filter: &RecordFilter,
    last: Option<(i64, i64)>,
) -> Result<Vec<Candidate>, StoreError> {
    let (last_time, last_lot) = last.unwrap_or((i64::MAX, i64::MAX));
    let rows = tx
        .rows(
            "SELECT lot, last_time, terms FROM audit_lots \
             WHERE last_time <= $1 AND (last_time < $1 OR lot < $2) AND last_time >= $3 AND first_time < $4 \
             ORDER BY last_time DESC, lot DESC LIMIT $5",
            &[
                last_time.into(),
                last_lot.into(),
                filter.from.map_or(i64::MIN, |at| at.0).into(),
                filter.to.map_or(i64::MAX, |at| at.0).into(),
                LOTS_AT_ONCE.into(),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let may_match = Terms::stored(row.bytes(2)?).may_match(filter);
            Ok(Candidate { lot: row.int(0)?, last_time: row.int(1)?, may_match })
        })
        .collect()
}

/// The newest `wanted` matching records of one lot, with their places.
async fn rows(
    tx: &mut Tx,
    filter: &RecordFilter,
    lot: i64,
    wanted: usize,
) -> Result<Vec<(i64, i64, Record)>, StoreError> {
    let mut sql = String::from("SELECT body, n FROM audit_records WHERE n >= $1 AND n < $2");
    let mut values = vec![Value::Int(lot * STRIDE), Value::Int((lot + 1) * STRIDE)];
    let conditions: [(&str, Option<Value<'_>>); 8] = [
        ("request_id = $", filter.request_id.as_deref().map(Value::Text)),
        ("partner_id = $", filter.partner_id.map(|id| id.0.into())),
        ("user_id = $", filter.user_id.as_deref().map(Value::Text)),
        ("action = $", filter.action.as_deref().map(Value::Text)),
        ("decision = $", filter.decision.map(|word| word.as_str().into())),
        ("kind = $", filter.kind.map(|kind| kind.as_str().into())),
        ("time >= $", filter.from.map(|at| at.0.into())),
        ("time < $", filter.to.map(|at| at.0.into())),
    ];
    for (condition, value) in conditions {
        if let Some(value) = value {
            values.push(value);
            sql.push_str(&format!(" AND {condition}{}", values.len()));
        }
    }
    sql.push_str(match filter.managed_tenant_id {
        // Which tenants a consolidated request had is found out from the record itself.
        Some(_) => " AND (has_slices OR managed_tenant_id = $",
        None => " ORDER BY time DESC, n DESC LIMIT $",
    });
    match &filter.managed_tenant_id {
        Some(tenant) => values.push(Value::Text(tenant)),
        None => values.push(Value::Int(i64::try_from(wanted).unwrap_or(i64::MAX))),
    }
    sql.push_str(&values.len().to_string());
    if filter.managed_tenant_id.is_some() {
        sql.push(')');
    }
    let mut found = Vec::new();
    for row in tx.rows(composed(sql), &values).await? {
        let record = read(&row)?;
        if filter.matches(&record) {
            found.push((record.time.0, row.int("n")?, record));
        }
    }
    Ok(found)
}
