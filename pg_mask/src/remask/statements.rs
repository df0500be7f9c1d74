//! The SQL that lifts a range of blocks. All of it runs with the table's owner's rights, so it calls nothing but what
//! PostgreSQL itself brings: the tokens are computed outside.

use super::part::Part;
use crate::keys::Keys;
use crate::older_tokens;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

/// Has constraints that may wait for the commit checked now: at the commit, the table's code would run as
/// the caller.
pub(super) const CHECK_NOW: &str = "SET CONSTRAINTS ALL IMMEDIATE";

/// No table has a later block (`MaxBlockNumber` in block.h).
const LAST_BLOCK: u32 = 0xffff_fffe;

pub(super) struct Statements {
    /// Gives address and tokens of the rows of a range that hold older tokens, and locks them. Rows that
    /// others have locked are left out: so nobody waits for whom. `None` if no token can be older.
    pub(super) lock_older: Option<String>,
    /// Writes lifted tokens: the range, addresses, and an array for each column. The range is there for the
    /// planner, which would read the whole table to find many addresses.
    pub(super) write: String,
    /// Counts the values of a range that are neither tokens in use nor to be lifted.
    pub(super) count_left_alone: String,
    /// Finds the blocks that hold older tokens. `None` if no token can be older.
    pub(super) find_blocks: Option<String>,
}

impl Statements {
    /// With hashes without a key, or as if they were no tokens.
    pub(super) fn of(part: &Part, keys: &Keys, with_generation_0: bool) -> Self {
        const RANGE: &str = "t.ctid OPERATOR(pg_catalog.>=) $1 AND t.ctid OPERATOR(pg_catalog.<) $2";
        let table = &part.name;
        let text = |name: &str| format!("(t.{name})::pg_catalog.text COLLATE \"C\"");
        let older = |name: &str| older_tokens::condition(&text(name), keys.generation(), with_generation_0);
        let can_be_older = keys.generation() > 1 || with_generation_0;
        let is_current =
            |name: &str| format!("pg_catalog.starts_with({}, 'm{}_')", text(name), keys.generation());
        let is_older = |name: &str| match older(name) {
            Some(older) => format!("(NOT {} AND {older})", is_current(name)),
            None => "false".to_owned(),
        };
        let each = |of: &dyn Fn(&str) -> String, between: &str| {
            part.columns.iter().map(|column| of(&column.name)).collect::<Vec<_>>().join(between)
        };
        let any_older = each(&is_older, " OR ");
        let texts = each(&|name| format!("(t.{name})::pg_catalog.text"), ", ");
        let set: Vec<String> =
            (1..).zip(&part.columns).map(|(n, column)| format!("{} = u.c{n}", column.name)).collect();
        let (names, arrays): (Vec<String>, Vec<String>) = (1..=part.columns.len())
            .map(|n| (format!("c{n}"), format!("pg_catalog.unnest(${}::pg_catalog.text[])", n + 3)))
            .unzip();
        let target = match &part.root {
            Some(root) => format!("{} AS t", root.name),
            None => format!("ONLY {table} AS t"),
        };
        let only_here = match &part.root {
            Some(_) => {
                format!(" AND t.tableoid OPERATOR(pg_catalog.=) {}::pg_catalog.oid", part.oid.to_u32())
            }
            None => String::new(),
        };
        let left_alone = each(
            &|name| {
                format!(
                    "pg_catalog.count(t.{name}) FILTER (WHERE NOT {} AND NOT {})",
                    is_current(name),
                    is_older(name)
                )
            },
            " OPERATOR(pg_catalog.+) ",
        );
        Self {
            lock_older: can_be_older.then(|| {
                format!(
                    "SELECT t.ctid, {texts} FROM ONLY {table} AS t WHERE {RANGE} AND ({any_older})
                     FOR NO KEY UPDATE SKIP LOCKED"
                )
            }),
            write: format!(
                "UPDATE {target} SET {} FROM ROWS FROM (pg_catalog.unnest($3::pg_catalog.tid[]), {}) AS u(row, {})
                 WHERE t.ctid OPERATOR(pg_catalog.=) u.row AND {RANGE}{only_here}",
                set.join(", "),
                arrays.join(", "),
                names.join(", ")
            ),
            count_left_alone: format!("SELECT {left_alone} FROM ONLY {table} AS t WHERE {RANGE}"),
            find_blocks: can_be_older.then(|| {
                format!(
                    "SELECT DISTINCT ((t.ctid::pg_catalog.text::pg_catalog.point)[0])::bigint
                     FROM ONLY {table} AS t WHERE {any_older} ORDER BY 1"
                )
            }),
        }
    }
}

/// The address before every row of a block, as an argument: places in a block are counted from 1.
pub(super) fn first_row_of<'a>(block: i64) -> DatumWithOid<'a> {
    let block = u32::try_from(block).unwrap_or(LAST_BLOCK);
    let mut address = pg_sys::ItemPointerData::default();
    address.ip_blkid.bi_hi = (block >> 16) as u16;
    address.ip_blkid.bi_lo = block as u16;
    // SAFETY: an ItemPointerData is what a tid is.
    unsafe { DatumWithOid::new(address, pg_sys::TIDOID) }
}
