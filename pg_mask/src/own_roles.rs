//! Roles that sql/00_roles.sql makes and that nobody but pg_mask acts as.

use pgrx::prelude::*;
use std::ffi::CStr;
use std::fmt;

/// What code of tables runs as.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RoleOfCode {
    /// Inserts logins, so code of the login table runs as it; a DBA grants it what that code needs.
    Writer,
    /// For code of all other tables, which is anybody's. It has no right at all.
    Nobody,
}

impl RoleOfCode {
    pub(crate) fn name(self) -> &'static CStr {
        match self {
            Self::Writer => c"pgmask_writer",
            Self::Nobody => c"pgmask_nobody",
        }
    }
}

/// Its name, and what it is there for.
impl fmt::Display for RoleOfCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Writer => "pgmask_writer, which inserts logins,",
            Self::Nobody => "pgmask_nobody, as which code of tables runs,",
        })
    }
}

/// The role that logins are inserted as, or none.
pub(crate) fn writer() -> pg_sys::Oid {
    // SAFETY: a look-up.
    unsafe { pg_sys::get_role_oid(RoleOfCode::Writer.name().as_ptr(), true) }
}

/// The role that the stored results of sql/05_dashboards.sql belong to, or none. Code of the login table's owner runs as it
/// while they are filled.
pub(crate) fn refresher() -> pg_sys::Oid {
    // SAFETY: a look-up.
    unsafe { pg_sys::get_role_oid(c"pgmask_refresher".as_ptr(), true) }
}

pub(crate) fn is_refresher(role: pg_sys::Oid) -> bool {
    role == refresher()
}
