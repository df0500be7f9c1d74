//! `CALL pgmask.remask(…)`: lifts the tokens that a table holds to the generation in use.
//!
//! The procedure (remask.sql) goes through a table range by range and commits each; the functions here do
//! one range. They see the role that called and check its rights themselves, and then act
//! [on behalf of](crate::on_behalf) the table's owner. [`part`] is the table and what may be done to it, [`owners_code`]
//! whether its code may have the owner's rights, [`cascades`] what would follow, [`writers`] in whose budgets hashes without a key count, [`statements`] the SQL that lifts.

mod cascades;
mod movers;
mod owners_code;
mod part;
mod statements;
mod writers;

use crate::arrays::ArrayBuilder;
use crate::error::{Error, OrRaise};
use crate::guesses::BudgetsOf;
use crate::held;
use crate::named_tables::Meant;
use crate::role_of_code::{self, commands::check_constraints, writes};
use crate::subtransaction::{Failure, attempt};
use crate::text::{OwnedText, Text};
use crate::{keys, plan};
use part::Part;
use pg_mask_core::hmac_key::Hash;
use pg_mask_core::mask::Masker;
use pg_mask_core::token::Token;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use statements::Statements;
use std::collections::HashSet;
use std::rc::Rc;

/// The first step: the extension is there until the last one.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn remask_begins() {
    held::hold_for_a_call();
}

/// Lifts the tokens in `count` blocks of a table, from block `first` on, but for rows that other
/// transactions have locked. `next` is the block to go on with, NULL at the end of the table; `left_alone`
/// counts values that are no tokens, and hashes that are not lifted; `limited_by` is a role whose budget was too
/// small for them.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[allow(clippy::type_complexity)] // the columns of the result
fn remask_blocks(
    part: pg_sys::Oid,
    columns: Option<Array<'_, Text<'_>>>,
    domain: Option<Text<'_>>,
    first: i64,
    count: i64,
) -> TableIterator<
    'static,
    (
        name!(next, Option<i64>),
        name!(lifted, i64),
        name!(left_alone, i64),
        name!(limited_by, Option<pg_sys::Oid>),
    ),
> {
    held::hold_to_write(c"remask()");
    TableIterator::once(lift_blocks(part, columns, domain, first, count).or_raise())
}

/// The blocks of a table that still hold tokens of older generations, as one snapshot sees it.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
fn remask_left(
    part: pg_sys::Oid,
    columns: Option<Array<'_, Text<'_>>>,
    domain: Option<Text<'_>>,
) -> Vec<i64> {
    held::hold();
    blocks_left(part, columns, domain).or_raise()
}

fn lift_blocks(
    part: pg_sys::Oid,
    columns: Option<Array<'_, Text<'_>>>,
    domain: Option<Text<'_>>,
    first: i64,
    count: i64,
) -> Result<(Option<i64>, i64, i64, Option<pg_sys::Oid>), Error> {
    // SAFETY: a plain read. Rows that were written before may have triggers of the caller's own wait for them,
    // which would run as the owner. Our own statements give the transaction an id, too, so it is the first thing.
    if unsafe { pg_sys::GetTopTransactionIdIfAny() } != pg_sys::InvalidTransactionId {
        return Err(Error::NotFirstToWrite);
    }
    let keys = keys::newest()?;
    let part = Part::open(part, columns.as_ref(), domain, &keys)?;
    cascades::refuse(&part)?;
    movers::refuse(&part)?;
    let statements = Statements::of(&part, &keys, part.lifts_generation_0);
    let end = first.saturating_add(count.max(1));
    let range = || vec![statements::first_row_of(first), statements::first_row_of(end)];
    let mut hashes = Hashes::of(&part);
    let mut lift = || {
        part.on_behalf.run(|| {
            check_now()?;
            let lifted = match statements.lock_older {
                Some(ref lock_older) => lift_rows(&part, &statements, lock_older, &mut hashes, range)?,
                None => 0,
            };
            let left_alone =
                plan::rows_once(part.meant(), &statements.count_left_alone, range, |row| row.get::<i64>(1))?;
            Ok::<_, Error>((lifted, left_alone.into_iter().sum::<i64>()))
        })
    };
    let (lifted, left_alone) = hiding_errors(&part, &mut lift)?;
    let next = (end < part.blocks).then_some(end);
    Ok((next, lifted, left_alone + hashes.left_alone, hashes.limited_by))
}

/// Does some of the work on a table. What the server says of an error may hold a row, which the caller need not be allowed to read.
fn hiding_errors<R>(part: &Part, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    let is_hidden = |failure: &Failure| !part.is_callers && !failure.is_interrupt();
    attempt(work, is_hidden).map_err(|failure| {
        let not_lifted = || Error::NotLifted { table: part.name.clone(), sqlstate: failure.sqlstate };
        role_of_code::refused(&failure.sqlstate).unwrap_or_else(not_lifted)
    })?
}

/// The hashes without a key of a range, which are lifted as long as there is a budget for them.
struct Hashes<'a> {
    part: &'a Part,
    /// In which they count, once there is one.
    budgets: Option<BudgetsOf>,
    /// By what they are lifted with, too: in another domain a hash is another value.
    counted: HashSet<(*const Masker, Hash)>,
    left_alone: i64,
    limited_by: Option<pg_sys::Oid>,
}

impl<'a> Hashes<'a> {
    fn of(part: &'a Part) -> Self {
        Self { part, budgets: None, counted: HashSet::new(), left_alone: 0, limited_by: None }
    }

    /// Counts a hash that `masker` is to lift, and each but once.
    fn may_be_lifted(&mut self, masker: &Rc<Masker>, hash: &Hash) -> Result<bool, Error> {
        let value = (Rc::as_ptr(masker), *hash);
        if !self.part.lifts_generation_0 {
            return Ok(false);
        }
        let budgets = match &self.budgets {
            Some(budgets) => budgets,
            None => self.budgets.insert(self.part.budgets()?),
        };
        if budgets.are_none() || self.counted.contains(&value) {
            return Ok(true);
        }
        if self.limited_by.is_none() {
            self.limited_by = budgets.count().err();
        }
        if self.limited_by.is_some() {
            self.left_alone += 1;
            return Ok(false);
        }
        Ok(self.counted.insert(value))
    }
}

/// Locks the rows of a range that hold older tokens, and writes the lifted ones.
fn lift_rows<'a>(
    part: &Part,
    statements: &Statements,
    lock_older: &str,
    hashes: &mut Hashes<'_>,
    range: impl Fn() -> Vec<pgrx::datum::DatumWithOid<'a>>,
) -> Result<i64, Error> {
    let mut rows = ArrayBuilder::tid();
    let mut columns: Vec<_> = part.columns.iter().map(|_| ArrayBuilder::text()).collect();
    plan::rows_once(part.meant(), lock_older, &range, |row| {
        let mut values = Vec::new();
        let mut changes = false;
        for (at, column) in part.columns.iter().enumerate() {
            let value = row.get_or_null::<OwnedText>(at + 2)?.map(|value| value.0);
            let token =
                value.as_deref().and_then(|value| Token::parse_older(value, column.masker.generation()));
            let token = match token {
                Some(token)
                    if token.generation == 0 && !hashes.may_be_lifted(&column.masker, &token.hash)? =>
                {
                    None
                }
                token => token,
            };
            let lifted = token.and_then(|token| column.masker.lift(&token));
            changes |= lifted.is_some();
            values.push(lifted.map(|hash| column.masker.token_of(&hash)).or(value));
        }
        if changes {
            rows.push_fixed(Some(row_address(row)?));
            columns.iter_mut().zip(&values).for_each(|(column, value)| column.push_bytes(value.as_deref()));
        }
        Ok(())
    })?;
    if rows.is_empty() {
        return Ok(0);
    }
    let arrays = std::iter::once(rows).chain(columns).map(ArrayBuilder::finish);
    let arguments = || range().into_iter().chain(arrays).collect();
    let write = || plan::write_once(part.meant_to_write(), &statements.write, arguments);
    let written = writes::own(write)?;
    // Deferred by a trigger that just ran, and not to be left for the commit, where the caller is the user.
    check_now()?;
    Ok(written as i64)
}

fn check_now() -> Result<(), Error> {
    let check = || plan::write_once(Meant::only(&[]), statements::CHECK_NOW, Vec::new);
    check_constraints(check).map(drop)
}

fn blocks_left(
    part: pg_sys::Oid,
    columns: Option<Array<'_, Text<'_>>>,
    domain: Option<Text<'_>>,
) -> Result<Vec<i64>, Error> {
    let keys = keys::newest()?;
    let part = Part::open(part, columns.as_ref(), domain, &keys)?;
    let find = |with_generation_0| {
        let statements = Statements::of(&part, &keys, with_generation_0);
        let Some(find_blocks) = statements.find_blocks else { return Ok(Vec::new()) };
        let find = || {
            part.on_behalf
                .run(|| plan::rows_once(part.meant(), &find_blocks, Vec::new, |row| row.get::<i64>(1)))
        };
        hiding_errors(&part, find)
    };
    let blocks = find(part.lifts_generation_0)?;
    // What is left may be hashes for which there is no budget.
    if part.lifts_generation_0 && !blocks.is_empty() && part.budgets()?.have_more().is_err() {
        return find(false);
    }
    Ok(blocks)
}

/// A row's address in the bytes that a `tid` consists of: block and place in it.
fn row_address(row: &plan::Row<'_>) -> Result<[u8; 6], Error> {
    let tid: pg_sys::ItemPointerData = row.get(1)?;
    let words = [tid.ip_blkid.bi_hi, tid.ip_blkid.bi_lo, tid.ip_posid].map(u16::to_ne_bytes);
    let mut bytes = [0; 6];
    bytes.copy_from_slice(words.as_flattened());
    Ok(bytes)
}
