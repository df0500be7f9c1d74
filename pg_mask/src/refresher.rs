//! The role that the stored results of sql/05_dashboards.sql belong to. Code of the login table's owner runs as it while they
//! are filled.

use pgrx::prelude::*;
use std::ffi::CStr;

/// Made by sql/00_roles.sql.
const NAME: &CStr = c"pgmask_refresher";

/// Whether `role` is that one.
pub(crate) fn is(role: pg_sys::Oid) -> bool {
    // SAFETY: a look-up.
    role == unsafe { pg_sys::get_role_oid(NAME.as_ptr(), true) }
}
