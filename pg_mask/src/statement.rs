//! Telling one statement from the next, at next to no cost.

use pgrx::prelude::*;

mod unguarded {
    unsafe extern "C" {
        /// Declared here because pgrx's own declaration sets up a `sigsetjmp` around every call.
        pub(super) fn GetCurrentStatementStartTimestamp() -> pgrx::pg_sys::TimestampTz;
    }
}

/// When the client's current statement started: equal within a statement, also in its parallel
/// workers.
#[inline]
pub(crate) fn started_at() -> pg_sys::TimestampTz {
    // SAFETY: it returns a static variable and can't raise an error (xact.c).
    unsafe { unguarded::GetCurrentStatementStartTimestamp() }
}
