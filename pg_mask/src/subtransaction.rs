//! Trying something that the database may refuse, without losing the transaction.

use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe};

/// Runs `work` in a subtransaction of its own. If it raises an error with an SQLSTATE that
/// `is_refusal` accepts, its effects are undone and that SQLSTATE is returned; any other error goes
/// on its way.
pub(crate) fn attempt<T>(
    work: impl FnOnce() -> T,
    is_refusal: impl Fn(&[u8; 5]) -> bool + UnwindSafe + RefUnwindSafe,
) -> Result<T, [u8; 5]> {
    // SAFETY: as PL/pgSQL does for a block with an EXCEPTION clause (pl_exec.c, exec_stmt_block):
    // memory context, resource owner and error context are put back on every way out.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let error_context = pg_sys::error_context_stack;
        let mut notes = pg_sys::ErrorContextCallback {
            previous: error_context,
            callback: Some(note_sqlstate),
            arg: std::ptr::null_mut(),
        };
        pg_sys::error_context_stack = &raw mut notes;
        PgTryBuilder::new(AssertUnwindSafe(|| {
            let done = work();
            pg_sys::error_context_stack = error_context;
            pg_sys::ReleaseCurrentSubTransaction();
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
            Ok(done)
        }))
        .catch_others(move |error| {
            pg_sys::error_context_stack = error_context;
            let sqlstate = match &error {
                pg_sys::panic::CaughtError::PostgresError(report)
                | pg_sys::panic::CaughtError::ErrorReport(report) => match report.sql_error_code() {
                    // What pgrx has no name for, too.
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR => sqlstate(NOTED.get()),
                    code => sqlstate(code as i32),
                },
                pg_sys::panic::CaughtError::RustPanic { .. } => *b"XX000",
            };
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::FlushErrorState();
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
            // Only now: an error must not leave the subtransaction open.
            if !is_refusal(&sqlstate) {
                error.rethrow();
            }
            Err(sqlstate)
        })
        .execute()
    }
}

thread_local! {
    /// The SQLSTATE of the last message that the server reported inside of an [`attempt`].
    static NOTED: Cell<i32> = const { Cell::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR as i32) };
}

mod unguarded {
    unsafe extern "C" {
        /// Declared here because pgrx's own declaration sets up a `sigsetjmp`, in the midst of an error.
        pub(super) fn geterrcode() -> i32;
    }
}

/// Called by the server whenever it reports something (`error_context_stack` in elog.c).
extern "C-unwind" fn note_sqlstate(_: *mut c_void) {
    // SAFETY: it reads the error that is being reported, as such callbacks may.
    NOTED.set(unsafe { unguarded::geterrcode() });
}

/// The five characters of an SQLSTATE, which PostgreSQL packs six bits each (`MAKE_SQLSTATE`).
fn sqlstate(packed: i32) -> [u8; 5] {
    [0, 6, 12, 18, 24].map(|shift| ((packed >> shift) & 0x3f) as u8 + b'0')
}
