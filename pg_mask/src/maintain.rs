//! Keeping the ledger small. What is done is in ledger.sql.

use crate::error::OrRaise;
use crate::held;
use crate::plan;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

const MAINTAIN: &str = "SELECT m.slots_emptied, m.rows_deleted FROM pgmask.maintain_ledger() AS m";

/// Forgets the messages that were taken in more than `pgmask.ledger_days` ago.
#[pg_extern(sql = false)]
fn maintain() -> TableIterator<'static, (name!(slots_emptied, i32), name!(rows_deleted, i64))> {
    held::hold();
    let read = |row: &plan::Row<'_>| Ok((row.get(1)?, row.get(2)?));
    TableIterator::once(plan::one_row(MAINTAIN, Vec::new, read).or_raise())
}
