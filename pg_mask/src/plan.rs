//! Statements that run again and again: each is planned once in a backend and kept. What they answer is
//! decoded here alone, so that no answer that can't be read is taken for a value.

use crate::error::{Error, OrRaise};
use crate::memory;
use crate::named_tables::Meant;
use crate::own_names;
use crate::quiet::Quiet;
use crate::short_errors;
use crate::snapshot::Snapshot;
use pgrx::datum::{Datum, DatumWithOid};
use pgrx::pg_sys::PgOid;
use pgrx::prelude::*;
use pgrx::spi::{self, OwnedPreparedStatement, Query, SpiClient, SpiHeapTupleData, SpiTupleTable};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::rc::Rc;

thread_local! {
    static KEPT: RefCell<HashMap<String, Rc<OwnedPreparedStatement>>> = RefCell::default();
    /// By their texts, and the types of their parameters: those of columns may change.
    static PLANS: RefCell<HashMap<(CString, Vec<pg_sys::Oid>), pg_sys::SPIPlanPtr>> = RefCell::default();
}

/// For `_PG_init`: see `prepare_thread_locals` there.
pub(crate) fn prepare() {
    KEPT.with(|_| ());
    PLANS.with(|_| ());
}

/// Runs `sql` with what `arguments` gives and lets `read` see the rows. Everything that both
/// allocate in PostgreSQL's memory is freed at the end.
///
/// Names in `sql` have to be qualified (but for `unnest` of several arrays, which is syntax and always
/// PostgreSQL's own), and its text has to be one of a few: every text is kept.
pub(crate) fn run<'a, R>(
    sql: &str,
    arguments: impl FnOnce() -> Vec<DatumWithOid<'a>>,
    read: impl FnOnce(SpiTupleTable<'_>) -> R,
) -> R {
    connect(|client| {
        let arguments = arguments();
        let kept = KEPT.with_borrow(|plans| plans.get(sql).cloned());
        let result = match kept {
            Some(plan) => execute(client, &*plan, &arguments),
            None => {
                let types: Vec<PgOid> = arguments.iter().map(|argument| argument.oid().into()).collect();
                client.prepare_mut(sql, &types).and_then(|plan| {
                    let plan = Rc::new(plan.keep());
                    KEPT.with_borrow_mut(|plans| plans.insert(sql.to_owned(), plan.clone()));
                    execute(client, &*plan, &arguments)
                })
            }
        };
        match result {
            Ok(rows) => read(rows),
            // Errors of the server never come here: they unwind. This is SPI used in a wrong way.
            Err(error) => {
                ereport!(ERROR, PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("pg_mask: {error}"));
            }
        }
    })
}

/// Connects to SPI. Names are PostgreSQL's own, whatever the caller's search path. Meanwhile no plan and no tree of a
/// statement is shown to the client, as any role may have them shown (`debug_print_plan`, and `auto_explain`, by
/// `client_min_messages`): they hold tokens and what else a statement is given. Nor is anything compiled: that would take
/// seconds where a look at catalogs takes milliseconds.
fn connect<R>(work: impl FnOnce(&mut SpiClient<'_>) -> R) -> R {
    memory::for_a_call().or_raise();
    let _quiet = Quiet::new();
    own_names::with_own_names(|| Spi::connect_mut(work))
}

/// A row that a statement gave.
pub(crate) struct Row<'a>(SpiHeapTupleData<'a>);

impl Row<'_> {
    /// The value in a column (from 1) that is never NULL.
    pub(crate) fn get<T: IntoDatum + FromDatum>(&self, column: usize) -> Result<T, Error> {
        self.get_or_null(column)?.ok_or(Error::Unreadable)
    }

    /// The value in a column (from 1), or `None` for NULL.
    pub(crate) fn get_or_null<T: IntoDatum + FromDatum>(&self, column: usize) -> Result<Option<T>, Error> {
        self.0.get(column).map_err(|_| Error::Unreadable)
    }
}

/// [`run`] for a statement that gives rows: `read` decodes each.
pub(crate) fn rows<'a, T>(
    sql: &str,
    arguments: impl FnOnce() -> Vec<DatumWithOid<'a>>,
    mut read: impl FnMut(&Row<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    run(sql, arguments, |rows| rows.map(|row| read(&Row(row))).collect())
}

/// [`rows`] for a statement that gives one row, always.
pub(crate) fn one_row<'a, T>(
    sql: &str,
    arguments: impl FnOnce() -> Vec<DatumWithOid<'a>>,
    read: impl FnMut(&Row<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    rows(sql, arguments, read)?.pop().ok_or(Error::Unreadable)
}

/// [`rows`] for a statement that names a user's table, or several: no plan of it is kept, and it is an error if
/// the names have come to mean others than those `meant`.
pub(crate) fn rows_once<'a, T>(
    meant: Meant,
    sql: &str,
    arguments: impl FnOnce() -> Vec<DatumWithOid<'a>>,
    read: impl FnMut(&Row<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    once(meant, sql, arguments, |_| answered(read))
}

/// How many rows a statement wrote, otherwise like [`rows_once`].
pub(crate) fn write_once<'a>(
    meant: Meant,
    sql: &str,
    arguments: impl FnOnce() -> Vec<DatumWithOid<'a>>,
) -> Result<usize, Error> {
    once(meant, sql, arguments, Ok)
}

/// `read` is given how many rows the statement was about.
fn once<'a, R>(
    meant: Meant,
    sql: &str,
    arguments: impl FnOnce() -> Vec<DatumWithOid<'a>>,
    read: impl FnOnce(usize) -> Result<R, Error>,
) -> Result<R, Error> {
    let sql = CString::new(sql).map_err(|_| Error::Unreadable)?;
    connect(|_| {
        let (mut types, mut values) = of_arguments(&arguments())?;
        let in_force = meant.put_in_force();
        // SAFETY: SPI is connected; types and values belong together. A standby takes nothing that may write.
        let done = unsafe {
            let is_read_only = pg_sys::RecoveryInProgress();
            short_errors::execute_with_args(&sql, &mut types, &mut values, is_read_only)
        };
        drop(in_force);
        // SAFETY: a read of what SPI has set.
        if done < 0 { Err(Error::Unreadable) } else { read(unsafe { pg_sys::SPI_processed } as usize) }
    })
}

/// The rows of the statement that SPI has just executed.
fn answered<T>(mut read: impl FnMut(&Row<'_>) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    // SAFETY: they are there until SPI is disconnected.
    unsafe {
        let rows = pg_sys::SPI_tuptable.as_ref().ok_or(Error::Unreadable)?;
        let tuples = std::slice::from_raw_parts(rows.vals, rows.numvals as usize);
        let row_of = |tuple: &pg_sys::HeapTuple| SpiHeapTupleData::new(rows.tupdesc, *tuple).ok().flatten();
        tuples.iter().map(|tuple| read(&Row(row_of(tuple).ok_or(Error::Unreadable)?))).collect()
    }
}

/// Executes a statement as one that may write, but for a standby: there, pgrx can't give the transaction the id
/// that it has for such a one.
fn execute<'conn, 'mcx>(
    client: &mut SpiClient<'conn>,
    query: impl Query<'conn>,
    arguments: &[DatumWithOid<'mcx>],
) -> spi::Result<SpiTupleTable<'conn>> {
    // SAFETY: a look-up.
    if unsafe { pg_sys::RecoveryInProgress() } {
        client.select(query, None, arguments)
    } else {
        client.update(query, None, arguments)
    }
}

/// Inserts with `sql`, in the server's encoding, into `table`.
///
/// `sql` names a table, and what a name means may change until the moment at which the statement is read. So it is read first, and
/// inserting into any other table is an error, before anything of that one's is planned or run.
pub(crate) fn insert_into<'a>(
    table: pg_sys::Oid,
    sql: &CStr,
    arguments: impl FnOnce() -> Vec<DatumWithOid<'a>>,
) -> Result<(), Error> {
    connect(|_| {
        let (types, mut values) = of_arguments(&arguments())?;
        // SAFETY: SPI is connected; types and values belong together.
        unsafe {
            let in_force = Meant::only(&[table]).put_in_force();
            let plan = kept(sql, types)?;
            short_errors::make_plan(plan);
            drop(in_force);
            if inserts_into(plan) != Some(table) {
                return Err(Error::Exchanged);
            }
            if short_errors::execute_plan(plan, &mut values) < 0 {
                return Err(Error::Unreadable);
            }
            if inserts_into(plan) == Some(table) { Ok(()) } else { Err(Error::Exchanged) }
        }
    })
}

/// [`rows`] for a statement that reads PostgreSQL's catalogs and nothing else: as they are now, whatever the isolation of the
/// transaction. What a table was before it was locked says nothing of it.
pub(crate) fn catalog<'a, T>(
    sql: &str,
    arguments: impl FnOnce() -> Vec<DatumWithOid<'a>>,
    read: impl FnMut(&Row<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let sql = CString::new(sql).map_err(|_| Error::Unreadable)?;
    connect(|_| {
        let (types, mut values) = of_arguments(&arguments())?;
        // SAFETY: SPI is connected; types and values belong together. The rows are there until it is disconnected.
        unsafe {
            let plan = kept(&sql, types)?;
            let none: *mut std::ffi::c_void = std::ptr::null_mut();
            let done = Snapshot::Newest.with(|newest| {
                pg_sys::SPI_execute_snapshot(
                    plan,
                    values.as_mut_ptr(),
                    none.cast(),
                    newest,
                    none.cast(),
                    true,
                    false,
                    0,
                )
            });
            if done == pg_sys::SPI_OK_SELECT as i32 { answered(read) } else { Err(Error::Unreadable) }
        }
    })
}

/// [`catalog`] for a statement that gives one row, always.
pub(crate) fn catalog_row<'a, T>(
    sql: &str,
    arguments: impl FnOnce() -> Vec<DatumWithOid<'a>>,
    read: impl FnMut(&Row<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    catalog(sql, arguments, read)?.pop().ok_or(Error::Unreadable)
}

/// The types and the values of arguments, none of which is NULL.
fn of_arguments(arguments: &[DatumWithOid<'_>]) -> Result<(Vec<pg_sys::Oid>, Vec<pg_sys::Datum>), Error> {
    let types = arguments.iter().map(DatumWithOid::oid).collect();
    let values = arguments.iter().map(|argument| argument.datum().map(Datum::sans_lifetime));
    Ok((types, values.collect::<Option<_>>().ok_or(Error::Unreadable)?))
}

/// The plan of a statement, which lives as long as the process.
///
/// # Safety
/// SPI is connected.
unsafe fn kept(sql: &CStr, mut types: Vec<pg_sys::Oid>) -> Result<pg_sys::SPIPlanPtr, Error> {
    let key = (sql.to_owned(), types.clone());
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(&key).copied()) {
        return Ok(plan);
    }
    // SAFETY: by the caller.
    let plan = unsafe {
        let plan = pg_sys::SPI_prepare(sql.as_ptr(), types.len() as i32, types.as_mut_ptr());
        if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
            return Err(Error::Unreadable);
        }
        plan
    };
    PLANS.with_borrow_mut(|plans| plans.insert(key, plan));
    Ok(plan)
}

/// The table that the statement itself inserts into; a rule may have added others.
///
/// # Safety
/// `plan` is a plan of one statement.
unsafe fn inserts_into(plan: pg_sys::SPIPlanPtr) -> Option<pg_sys::Oid> {
    // SAFETY: lists and nodes are those of a statement that has been executed just now (plancache.h).
    unsafe {
        let sources = pg_sys::SPI_plan_get_plan_sources(plan);
        let source: *const pg_sys::CachedPlanSource = nth(sources, 0)?.cast();
        for n in 0.. {
            let query: *const pg_sys::Query = nth((*source).query_list, n)?.cast();
            if (*query).canSetTag {
                let table: *const pg_sys::RangeTblEntry =
                    nth((*query).rtable, (*query).resultRelation - 1)?.cast();
                return Some((*table).relid);
            }
        }
        None
    }
}

/// An element of a list of PostgreSQL's, from 0.
///
/// # Safety
/// `list` is a list of pointers, or NULL.
unsafe fn nth(list: *const pg_sys::List, n: i32) -> Option<*mut std::ffi::c_void> {
    // SAFETY: by the caller, and within the list's length.
    unsafe {
        let list = list.as_ref()?;
        (0..list.length).contains(&n).then(|| (*list.elements.add(n as usize)).ptr_value)
    }
}

/// A `date` argument, of days since 2000-01-01.
pub(crate) fn date<'a>(day: i32) -> DatumWithOid<'a> {
    // SAFETY: a date is passed by value, as these days.
    unsafe { DatumWithOid::new(day, pg_sys::DATEOID) }
}

/// A `timestamptz` argument, of microseconds since 2000-01-01 UTC.
pub(crate) fn timestamptz<'a>(time: i64) -> DatumWithOid<'a> {
    // SAFETY: a timestamptz is passed by value, as these microseconds.
    unsafe { DatumWithOid::new(time, pg_sys::TIMESTAMPTZOID) }
}
