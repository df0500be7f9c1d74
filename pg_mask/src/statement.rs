//! Telling one statement from the next, at next to no cost.

use crate::unguarded;
use pgrx::prelude::*;

/// When the client's current statement started: equal within a statement, also in its parallel
/// workers.
#[inline]
pub(crate) fn started_at() -> pg_sys::TimestampTz {
    // SAFETY: it returns a static variable and can't raise an error (xact.c).
    unsafe { unguarded::GetCurrentStatementStartTimestamp() }
}
