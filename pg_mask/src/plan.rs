//! Statements that run again and again: each is planned once in a backend and kept.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::PgOid;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiTupleTable};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

thread_local! {
    static KEPT: RefCell<HashMap<String, Rc<OwnedPreparedStatement>>> = RefCell::default();
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
    Spi::connect_mut(|client| {
        let arguments = arguments();
        let kept = KEPT.with_borrow(|plans| plans.get(sql).cloned());
        let result = match kept {
            Some(plan) => client.update(&*plan, None, &arguments),
            None => {
                let types: Vec<PgOid> = arguments.iter().map(|argument| argument.oid().into()).collect();
                client.prepare_mut(sql, &types).and_then(|plan| {
                    let plan = Rc::new(plan.keep());
                    KEPT.with_borrow_mut(|plans| plans.insert(sql.to_owned(), plan.clone()));
                    client.update(&*plan, None, &arguments)
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

/// A `date` argument, of days since 2000-01-01.
pub(crate) fn date<'a>(day: i32) -> DatumWithOid<'a> {
    // SAFETY: a date is passed by value, as these days.
    unsafe { DatumWithOid::new(day, pg_sys::DATEOID) }
}
