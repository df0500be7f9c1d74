//! What the view `pgmask.health` (health.sql) looks at in the login table.
//!
//! Whoever owns that table may put a view in its place, whose functions would run with the rights of the
//! reader; and reading a table runs functions in its indexes. So it is read on behalf of its owner.

use crate::error::{Error, OrRaise};
use crate::named_tables::look_up;
use crate::on_behalf::OnBehalf;
use crate::own_roles::RoleOfCode;
use crate::subtransaction::{Failure, attempt};
use crate::text::OwnedText;
use crate::{held, named_tables, no_prepare, older_tokens, plan, settings};
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

/// What kind of relation $1 is.
const KIND: &str = "SELECT c.relkind FROM pg_catalog.pg_class AS c WHERE c.oid = $1";

/// The tables that hold the rows of table $1. A foreign one is not looked at: its server would be asked as its owner.
const PARTS: &str = "WITH RECURSIVE tree (id) AS (
        SELECT $1
        UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN tree ON i.inhparent = tree.id
    )
    SELECT c.oid FROM tree JOIN pg_catalog.pg_class AS c ON c.oid = tree.id WHERE c.relkind = 'r' ORDER BY c.oid";

const ITEMS: &str = "SELECT h.item, h.state, h.value, h.hint FROM pgmask.health_of_everything() AS h";

/// The rows of `pgmask.health`.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // pgrx reads the columns of a row here
fn health_items() -> TableIterator<
    'static,
    (
        name!(item, Option<OwnedText>),
        name!(state, Option<OwnedText>),
        name!(value, Option<OwnedText>),
        name!(hint, Option<OwnedText>),
    ),
> {
    held::hold();
    let read = |row: &plan::Row<'_>| {
        Ok((row.get_or_null(1)?, row.get_or_null(2)?, row.get_or_null(3)?, row.get_or_null(4)?))
    };
    TableIterator::new(plan::rows(ITEMS, Vec::new, read).or_raise())
}

/// Of the first rows of the login table, how many are looked at and how many have tokens of an older
/// generation than the given one, or of generation 0.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn sample_older_tokens(
    generation: i32,
    most: i32,
) -> TableIterator<'static, (name!(looked_at, i64), name!(older, i64))> {
    no_prepare::refuse();
    TableIterator::once(sample(generation, most).or_raise())
}

fn sample(generation: i32, most: i32) -> Result<(i64, i64), Error> {
    let setting = settings::login_table();
    let shown = || setting.to_string_lossy().into_owned();
    let table = look_up(&setting).ok_or_else(|| Error::NoLoginTable(shown()))?;
    let kinds = plan::catalog(KIND, || vec![table.into()], |row| row.get::<i8>(1))?;
    match kinds[..] {
        [] => return Err(Error::NoLoginTable(shown())),
        [kind] if [pg_sys::RELKIND_RELATION, pg_sys::RELKIND_PARTITIONED_TABLE].contains(&(kind as u8)) => {}
        _ => return Err(Error::NotATable(shown())),
    }
    let generation = u32::try_from(generation).unwrap_or_default();
    let (mut looked_at, mut older) = (0, 0);
    for part in plan::catalog(PARTS, || vec![table.into()], |row| row.get::<pg_sys::Oid>(1))? {
        let left = i64::from(most) - looked_at;
        if left <= 0 {
            break;
        }
        match sample_part(part, generation, left)? {
            Some((looked_at_here, older_here)) => {
                looked_at += looked_at_here;
                older += older_here;
            }
            None if part == table => return Err(Error::NoLoginTable(shown())),
            None => {}
        }
    }
    Ok((looked_at, older))
}

/// `None` if it was dropped meanwhile.
fn sample_part(part: pg_sys::Oid, generation: u32, most: i64) -> Result<Option<(i64, i64)>, Error> {
    // SAFETY: the relation is locked, and open while it is looked at; the lock is kept until the transaction ends, as a
    // statement's would be, so all of it still holds when the table is read.
    let (name, owner) = unsafe {
        let relation = pg_sys::try_relation_open(part, pg_sys::AccessShareLock as i32);
        if relation.is_null() {
            return Ok(None);
        }
        let class = &*(*relation).rd_rel;
        let found = (class.relkind as u8 == pg_sys::RELKIND_RELATION)
            .then(|| (named_tables::qualified_name(class), class.relowner));
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        let Some(found) = found else { return Ok(None) };
        found
    };
    let is_older = |column: &str| {
        older_tokens::condition(&format!("(t.{column} COLLATE \"C\")"), generation, true)
            .unwrap_or_else(|| "false".to_owned())
    };
    let sql = format!(
        "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE {} OR {})
         FROM (SELECT masked_ip::pg_catalog.text, masked_device_id::pg_catalog.text FROM ONLY {name} LIMIT $1) AS t",
        is_older("masked_ip"),
        is_older("masked_device_id"),
    );
    let read = |row: &plan::Row<'_>| Ok((row.get(1)?, row.get(2)?));
    let on_behalf = OnBehalf::with_code_as(RoleOfCode::Writer, owner, part)?;
    let look = || on_behalf.run(|| plan::rows_once(on_behalf.meant(part), &sql, || vec![most.into()], read));
    let counts = attempt(look, ends_like_a_cancel)
        .map_err(|failure| Error::NotLookedAt { table: name.clone(), sqlstate: failure.sqlstate })??;
    counts.first().copied().map(Some).ok_or(Error::Unreadable)
}

/// Whether code raised an error that goes through a block with EXCEPTION WHEN OTHERS (pl_exec.c, exception_matches_conditions): the
/// view would have no row at all then.
fn ends_like_a_cancel(failure: &Failure) -> bool {
    !failure.is_interrupt() && [*b"57014", *b"P0004"].contains(&failure.sqlstate)
}
