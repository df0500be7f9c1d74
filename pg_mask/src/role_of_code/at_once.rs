//! Settings that take effect at once, in the midst of a statement, and are not put back by putting their values back:
//! `transaction_timeout` (from PostgreSQL 17 on) would end the session of whoever inserts, again with each delivery, and start the
//! client's own anew; `seed` decides on the session's next random numbers; `exit_on_error` would have an error end the session.

use crate::own_names;
use pgrx::prelude::*;

/// Has PostgreSQL refuse them in a security-restricted operation from now on, as it does SET ROLE. For `_PG_init`.
pub(super) fn watch() {
    for name in [c"transaction_timeout", c"seed", c"exit_on_error"] {
        // SAFETY: a setting lives as long as the process; older servers lack the one.
        unsafe {
            if let Some(setting) = own_names::record(name).as_mut() {
                setting.flags |= pg_sys::GUC_NOT_WHILE_SEC_REST as i32;
            }
        }
    }
}
