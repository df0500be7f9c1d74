//! The extension is there for as long as a function with its owner's rights runs. That function finds tables and functions by their
//! names: if the extension were dropped in its midst, and others made a schema `pgmask` of their own, it would go on with what
//! they have put there.

use crate::error::{Error, OrRaise};
use crate::memory;
use pgrx::prelude::*;
use std::ffi::CStr;

/// Keeps the extension from being dropped until the transaction ends. Waits for whoever is dropping it.
pub(crate) fn hold() {
    // SAFETY: a look-up by a name that lives as long as the process; an object that is not there is said by its invalid id.
    let found = unsafe {
        let mut relation = std::ptr::null_mut();
        pg_sys::get_object_address(
            pg_sys::ObjectType::OBJECT_EXTENSION,
            pg_sys::makeString(c"pg_mask".as_ptr().cast_mut()).cast(),
            &raw mut relation,
            pg_sys::AccessShareLock as i32,
            true,
        )
    };
    if found.objectId == pg_sys::InvalidOid {
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
