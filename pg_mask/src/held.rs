//! The extension is there for as long as a function with its owner's rights runs. That function finds tables and functions by their
//! names: if the extension were dropped in its midst, and others made a schema `pgmask` of their own, it would go on with what
//! they have put there.

use crate::error::{Error, OrRaise};
use crate::memory;
use pgrx::prelude::*;
use std::ffi::CStr;

/// A table of the extension's that nobody but its own functions locks.
const ONE_OF_ITS_TABLES: &CStr = c"database_id";

/// Keeps the extension from being dropped until the transaction ends, on a standby, too: to drop it, all of its tables are locked first.
/// Waits for whoever is dropping it. (A lock on the extension itself would do on no standby, and others can have PostgreSQL take it
/// without any right: ALTER FUNCTION … DEPENDS ON EXTENSION.)
pub(crate) fn hold() {
    // SAFETY: a look-up by names, which it only reads, and one of what it has found.
    let is_ours = unsafe {
        let name =
            pg_sys::makeRangeVar(c"pgmask".as_ptr().cast_mut(), ONE_OF_ITS_TABLES.as_ptr().cast_mut(), -1);
        let table = pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::AccessShareLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        );
        let extension = pg_sys::get_extension_oid(c"pg_mask".as_ptr(), true);
        extension != pg_sys::InvalidOid
            && extension == pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, table)
    };
    if !is_ours {
        Err::<(), _>(Error::Gone).or_raise();
    }
}

/// The same for one that writes: on a standby, or in a transaction that was told to only read, the error that says so.
pub(crate) fn hold_to_write(function: &'static CStr) {
    memory::for_a_call().or_raise(); // before any look-up, whose error would need memory
    // SAFETY: a plain call with a static string.
    unsafe { pg_sys::PreventCommandIfReadOnly(function.as_ptr()) };
    hold();
}
