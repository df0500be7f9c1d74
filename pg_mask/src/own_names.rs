//! The names and operators that statements of ours are read with.

use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::CStr;

/// The search path of statements of ours, and of code of tables where it sets none.
const OWN: &CStr = c"pg_catalog, pg_temp";

/// Runs `work` with names and operators found in PostgreSQL's own schema only. The caller's search path is not the
/// caller's alone: whoever may make an operator in a schema of it can make one that fits better than PostgreSQL's.
pub(crate) fn with_own_names<R>(work: impl FnOnce() -> R) -> R {
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

/// Settings that decide on what statements and constants mean, and their values by default.
const PLAIN: [(&CStr, &CStr); 7] = [
    (c"standard_conforming_strings", c"on"),
    (c"backslash_quote", c"safe_encoding"),
    (c"transform_null_equals", c"off"),
    (c"array_nulls", c"on"),
    (c"xmloption", c"content"),
    (c"bytea_output", c"hex"),
    (c"quote_all_identifiers", c"off"), // REFRESH ... CONCURRENTLY fails with it (matview.c)
];

/// Runs `work` with statements of code read as everywhere: quotes, backslashes and NULLs mean what they mean by default, whatever
/// whoever's session it is has set. Code that writes statements itself would write others.
pub(crate) fn with_plain_statements<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: as above; each of these settings is there, and its value is looked at before anything can change it.
    unsafe {
        let settings = pg_sys::NewGUCNestLevel();
        for (name, value) in PLAIN {
            let now = pg_sys::GetConfigOption(name.as_ptr(), false, false);
            if now.is_null() || CStr::from_ptr(now) != value {
                set(name, value);
            }
        }
        let done = work();
        pg_sys::AtEOXact_GUC(false, settings);
        done
    }
}

/// Has names found in PostgreSQL's own schema only, and row security fail a statement, until the settings that hold
/// around it are put back.
pub(crate) fn pin() {
    pin_path();
    set(c"row_security", c"off");
}

/// The same for names alone.
pub(crate) fn pin_path() {
    set(c"search_path", OWN);
}

/// Has policies hold, as they do by default, until the settings that hold around it are put back.
pub(crate) fn with_policies() {
    set(c"row_security", c"on");
}

thread_local! {
    static PATH: Cell<*mut pg_sys::config_generic> = const { Cell::new(std::ptr::null_mut()) };
}

/// Sets the search path anew, if code has put it back to what the client's session began with (RESET).
pub(crate) fn pin_path_again() {
    // SAFETY: a read of the backend's own state; the setting is there, and lives as long as the process.
    let is_sessions = unsafe {
        if PATH.get().is_null() {
            PATH.set(record(c"search_path"));
        }
        (*PATH.get()).source != pg_sys::GucSource::PGC_S_SESSION
    };
    if is_sessions {
        pin_path();
    }
}

/// PostgreSQL's own record of a setting, which lives as long as the process; null if there is none.
#[cfg(not(feature = "pg15"))]
pub(crate) fn record(name: &CStr) -> *mut pg_sys::config_generic {
    // SAFETY: a look-up.
    unsafe { pg_sys::find_option(name.as_ptr(), false, true, PgLogLevel::ERROR as i32) }
}

#[cfg(feature = "pg15")]
pub(crate) fn record(name: &CStr) -> *mut pg_sys::config_generic {
    // SAFETY: the array has so many settings, each of which has a name.
    unsafe {
        let all =
            std::slice::from_raw_parts(pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions() as usize);
        let found = all.iter().find(|setting| CStr::from_ptr((***setting).name) == name);
        found.map_or(std::ptr::null_mut(), |setting| *setting)
    }
}

/// Sets a setting until those that hold around it are put back.
pub(crate) fn set(name: &CStr, value: &CStr) {
    set_as(name, value, pg_sys::GucAction::GUC_ACTION_SAVE);
}

/// Sets a setting until the transaction ends.
pub(crate) fn set_for_the_transaction(name: &CStr, value: &CStr) {
    set_as(name, value, pg_sys::GucAction::GUC_ACTION_LOCAL);
}

fn set_as(name: &CStr, value: &CStr, action: pg_sys::GucAction::Type) {
    // SAFETY: a plain call with static strings.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}
