//! Running as somebody else, as PostgreSQL's own maintenance commands do.

use crate::quiet::Settings;
use pgrx::prelude::*;

/// Runs `work` as `role` in a security-restricted operation: code of others that it comes across has no right
/// but that role's, and leaves nothing behind in the session that would run as somebody else. Settings that it
/// changes are put back.
pub(crate) fn bound<R>(role: pg_sys::Oid, work: impl FnOnce() -> R) -> R {
    let restriction = (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION) as i32;
    // What a foreign key has followed, where that led here, is not what is done now.
    let follows_a_key = pg_sys::SECURITY_NOFORCE_RLS as i32;
    user(role, |context| context & !follows_a_key | restriction, work)
}

/// Runs `work` as `role`, where PostgreSQL itself would not do what it does in a security-restricted operation.
pub(crate) fn unbound<R>(role: pg_sys::Oid, work: impl FnOnce() -> R) -> R {
    user(role, |context| context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32, work)
}

/// If `work` raises an error, the end of the (sub)transaction brings user and settings back.
fn user<R>(user: pg_sys::Oid, context: impl FnOnce(i32) -> i32, work: impl FnOnce() -> R) -> R {
    let (mut user_before, mut context_before) = (pg_sys::InvalidOid, 0);
    let quiet_or_not = Settings::now();
    // SAFETY: plain reads and writes of the backend's own state (miscinit.c, guc.c).
    let settings = unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user_before, &mut context_before);
        pg_sys::SetUserIdAndSecContext(user, context(context_before));
        pg_sys::NewGUCNestLevel()
    };
    let done = work();
    // SAFETY: as above; the level is the one opened there.
    unsafe {
        pg_sys::AtEOXact_GUC(false, settings);
        // Code that had set one of them has it put back to what it found, which was ours while a statement ran.
        quiet_or_not.put_in_force();
        pg_sys::SetUserIdAndSecContext(user_before, context_before);
    }
    done
}
