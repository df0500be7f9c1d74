//! What the view `pgmask.health` (health.sql) looks at in the login table.
//!
//! Whoever owns that table may put a view in its place, whose functions would run with the rights of the
//! reader; and reading a table runs functions in its indexes. So it is read on behalf of its owner.

use crate::error::{Error, OrRaise};
use crate::ingest::target::look_up;
use crate::on_behalf::OnBehalf;
use crate::{older_tokens, plan, settings};
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

/// The owner of relation $1, its name for a statement, and whether it is a table. Read while the table is locked, so
/// that all of it still holds when the table is read.
const OWNER: &str = "SELECT c.relowner, c.oid::pg_catalog.regclass::pg_catalog.text, c.relkind IN ('r', 'p')
    FROM pg_catalog.pg_class AS c WHERE c.oid = $1";

/// Of the first rows of the login table, how many are looked at and how many have tokens of an older
/// generation than the given one, or of generation 0.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn sample_older_tokens(
    generation: i32,
    most: i32,
) -> TableIterator<'static, (name!(looked_at, i64), name!(older, i64))> {
    TableIterator::once(sample(generation, most).or_raise())
}

fn sample(generation: i32, most: i32) -> Result<(i64, i64), Error> {
    let setting = settings::login_table();
    let shown = || setting.to_string_lossy().into_owned();
    let table = look_up(&setting).ok_or_else(|| Error::NoLoginTable(shown()))?;
    let read = |row: &plan::Row<'_>| {
        let is_table: bool = row.get(3)?;
        Ok((row.get(1)?, row.get::<String>(2)?, is_table))
    };
    // SAFETY: plain calls; the lock is kept until the transaction ends, as a statement's would be.
    unsafe {
        let relation = pg_sys::try_relation_open(table, pg_sys::AccessShareLock as i32);
        if relation.is_null() {
            return Err(Error::NoLoginTable(shown()));
        }
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
    }
    let found = plan::rows(OWNER, || vec![table.into()], read)?.pop();
    let (owner, name, is_table) = found.ok_or_else(|| Error::NoLoginTable(shown()))?;
    if !is_table {
        return Err(Error::NotATable(shown()));
    }
    let generation = u32::try_from(generation).unwrap_or_default();
    let is_older = |column: &str| {
        older_tokens::condition(&format!("(t.{column} COLLATE \"C\")"), generation, true)
            .unwrap_or_else(|| "false".to_owned())
    };
    let sql = format!(
        "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE {} OR {})
         FROM (SELECT masked_ip::pg_catalog.text, masked_device_id::pg_catalog.text FROM {name} LIMIT $1) AS t",
        is_older("masked_ip"),
        is_older("masked_device_id"),
    );
    let arguments = || vec![i64::from(most).into()];
    let read = |row: &plan::Row<'_>| Ok((row.get(1)?, row.get(2)?));
    let owner = OnBehalf::of_login_table(owner)?;
    let counts = owner.run(|| plan::rows_once(owner.meant(table), &sql, arguments, read))?.pop();
    counts.ok_or(Error::Unreadable)
}
