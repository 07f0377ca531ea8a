//! Rows of many ids, in pieces that both databases take.

use crate::store::{
    StoreError,
    sql::{Row, Tx, Value, composed},
};

/// Ids of one statement.
pub(super) const AT_ONCE: usize = 400;

pub(super) fn distinct<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

/// Rows whose `column` is one of these, in pieces that both databases take.
pub(super) async fn by_ids(
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

pub(super) fn marks(first: usize, count: usize) -> String {
    (first..first + count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}
