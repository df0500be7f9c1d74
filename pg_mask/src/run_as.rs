//! Running as somebody else, as PostgreSQL's own maintenance commands do.

use pgrx::prelude::*;

/// Runs `work` as the owner of the table that it writes to.
///
/// Triggers, defaults and constraints of that table are its owner's code. They have to run with the
/// owner's rights, not with those of the SECURITY DEFINER function that writes: otherwise whoever
/// owns the table would own the server. If `work` raises an error, the end of the (sub)transaction
/// brings the user back.
pub(crate) fn owner<R>(owner: pg_sys::Oid, work: impl FnOnce() -> R) -> R {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: plain reads and writes of the backend's own state (miscinit.c).
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let mut restricted = context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        if !pg_sys::superuser_arg(owner) {
            // What the owner's code leaves behind in the session must not run as somebody else.
            restricted |= pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
        }
        pg_sys::SetUserIdAndSecContext(owner, restricted);
    }
    let done = work();
    // SAFETY: as above.
    unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
    done
}
