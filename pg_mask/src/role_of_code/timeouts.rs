//! A setting that takes effect at once, in the midst of a statement: `transaction_timeout` (PostgreSQL 17 and later) would end the
//! session of whoever inserts, again with each delivery, and start the client's own anew.

use pgrx::prelude::*;

/// Has PostgreSQL refuse it in a security-restricted operation from now on, as it does SET ROLE. For `_PG_init`.
pub(super) fn watch() {
    let (name, level) = (c"transaction_timeout".as_ptr(), PgLogLevel::ERROR as i32);
    // SAFETY: a look-up of a setting, which lives as long as the process; older servers have none of that name.
    unsafe {
        if let Some(setting) = pg_sys::find_option(name, false, true, level).as_mut() {
            setting.flags |= pg_sys::GUC_NOT_WHILE_SEC_REST as i32;
        }
    }
}
