//! Trying something that the database may refuse, without losing the transaction.

use pgrx::prelude::*;
use std::panic::AssertUnwindSafe;

/// Runs `work` in a subtransaction of its own. If it raises an error with an SQLSTATE that
/// `is_refusal` accepts, its effects are undone and that SQLSTATE is returned; any other error goes
/// on its way.
pub(crate) fn attempt<T>(work: impl FnOnce() -> T, is_refusal: fn(&[u8; 5]) -> bool) -> Result<T, [u8; 5]> {
    // SAFETY: as PL/pgSQL does for a block with an EXCEPTION clause (pl_exec.c, exec_stmt_block):
    // memory context and resource owner are put back on every way out.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        PgTryBuilder::new(AssertUnwindSafe(|| {
            let done = work();
            pg_sys::ReleaseCurrentSubTransaction();
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
            Ok(done)
        }))
        .catch_others(move |error| {
            let sqlstate = match &error {
                pg_sys::panic::CaughtError::PostgresError(report)
                | pg_sys::panic::CaughtError::ErrorReport(report) => sqlstate(report.sql_error_code()),
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

/// The five characters of an SQLSTATE, which PostgreSQL packs six bits each (`MAKE_SQLSTATE`).
fn sqlstate(code: PgSqlErrorCode) -> [u8; 5] {
    let packed = code as i32;
    [0, 6, 12, 18, 24].map(|shift| ((packed >> shift) & 0x3f) as u8 + b'0')
}
