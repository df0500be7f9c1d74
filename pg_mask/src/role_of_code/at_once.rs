//! Settings that take effect at once, in the midst of a statement, and are not put back by putting their values back:
//! `transaction_timeout` (from PostgreSQL 17 on) would end the session of whoever inserts, again with each delivery, and start the
//! client's own anew; `seed` decides on the session's next random numbers; `exit_on_error` would have an error end the session.

use pgrx::prelude::*;
use std::ffi::CStr;

/// Has PostgreSQL refuse them in a security-restricted operation from now on, as it does SET ROLE. For `_PG_init`.
pub(super) fn watch() {
    for name in [c"transaction_timeout", c"seed", c"exit_on_error"] {
        // SAFETY: a setting lives as long as the process; older servers lack the one.
        unsafe {
            if let Some(setting) = find(name).as_mut() {
                setting.flags |= pg_sys::GUC_NOT_WHILE_SEC_REST as i32;
            }
        }
    }
}

#[cfg(not(feature = "pg15"))]
fn find(name: &CStr) -> *mut pg_sys::config_generic {
    // SAFETY: a look-up.
    unsafe { pg_sys::find_option(name.as_ptr(), false, true, PgLogLevel::ERROR as i32) }
}

#[cfg(feature = "pg15")]
fn find(name: &CStr) -> *mut pg_sys::config_generic {
    // SAFETY: the array has so many settings, each of which has a name.
    unsafe {
        let all =
            std::slice::from_raw_parts(pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions() as usize);
        let found = all.iter().find(|setting| CStr::from_ptr((***setting).name) == name);
        found.map_or(std::ptr::null_mut(), |setting| *setting)
    }
}
