//! PostgreSQL's functions that are called for each row and can't raise an error as they are used here:
//! pgrx's own declarations set up a `sigsetjmp` around every call.

use pgrx::pg_sys::TimestampTz;
use std::ffi::{c_int, c_void};

unsafe extern "C" {
    pub(crate) fn GetCurrentStatementStartTimestamp() -> TimestampTz;
    pub(crate) fn palloc_extended(size: usize, flags: c_int) -> *mut c_void;
}
