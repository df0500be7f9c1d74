//! Running as somebody else, as PostgreSQL's own maintenance commands do.

use crate::cursors::OutOfReach;
use crate::error::Error;
use pgrx::prelude::*;
use std::ffi::CStr;

/// Runs `work` as `role` in a security-restricted operation: code of others that it comes across has no right
/// but that role's, and leaves nothing behind in the session that would run as somebody else. Settings that it
/// changes are put back.
pub(crate) fn bound<R>(role: pg_sys::Oid, work: impl FnOnce() -> R) -> R {
    let restriction = (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION) as i32;
    user(role, |context| context | restriction, work)
}

/// [`bound`] for PostgreSQL's own kind of maintenance (VACUUM, CREATE INDEX), as the owner of what it works on.
/// Row security fails the statement rather than hide rows from it. Code of the owner's reaches no cursor, and leaves none.
pub(crate) fn restricted<R>(owner: pg_sys::Oid, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    let cursors = OutOfReach::new()?;
    let done = bound(owner, || {
        pin();
        work()
    })?;
    cursors.none_was_left()?;
    Ok(done)
}

/// Runs `work` with names and operators found in PostgreSQL's own schema only. The caller's search path is not the
/// caller's alone: whoever may make an operator in a schema of it can make one that fits better than PostgreSQL's.
pub(crate) fn with_own_names<R>(work: impl FnOnce() -> R) -> R {
    const OWN: &CStr = c"pg_catalog, pg_temp";
    // SAFETY: a read of the backend's own state; the setting has a value at all times. The level is closed again here, or
    // by the end of the (sub)transaction after an error.
    unsafe {
        let now = pg_sys::namespace_search_path;
        if !now.is_null() && CStr::from_ptr(now) == OWN {
            return work();
        }
        let settings = pg_sys::NewGUCNestLevel();
        set(c"search_path", OWN);
        let done = work();
        pg_sys::AtEOXact_GUC(false, settings);
        done
    }
}

/// Has names found in PostgreSQL's own schema only, and row security fail a statement, until the settings of [`bound`]
/// are put back.
pub(crate) fn pin() {
    set(c"search_path", c"pg_catalog, pg_temp");
    set(c"row_security", c"off");
}

/// Sets a setting until the settings of [`bound`] are put back.
pub(crate) fn set(name: &CStr, value: &CStr) {
    // SAFETY: a plain call with static strings.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}

/// If `work` raises an error, the end of the (sub)transaction brings user and settings back.
fn user<R>(user: pg_sys::Oid, context: impl FnOnce(i32) -> i32, work: impl FnOnce() -> R) -> R {
    let (mut user_before, mut context_before) = (pg_sys::InvalidOid, 0);
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
        pg_sys::SetUserIdAndSecContext(user_before, context_before);
    }
    done
}
