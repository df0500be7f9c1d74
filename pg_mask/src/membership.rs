//! Who may act as whom.

use pgrx::prelude::*;

/// Whether a role is a member of another in more than name: whoever made the other, on PostgreSQL 16 and later, may only
/// administer it.
pub(crate) fn may_act_as(role: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups.
    unsafe {
        #[cfg(not(feature = "pg15"))]
        let may_set = pg_sys::member_can_set_role(role, other);
        #[cfg(feature = "pg15")]
        let may_set = pg_sys::is_member_of_role(role, other);
        may_set || pg_sys::has_privs_of_role(role, other)
    }
}
