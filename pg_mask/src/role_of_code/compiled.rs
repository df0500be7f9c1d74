//! PL/pgSQL looks up the types that a function declares when it is called first in a session, in the search path of that
//! moment, and keeps them for all later calls, whoever's they are. So code of a table, which has another's session for a moment,
//! calls no such function in a search path that others have set than its owner, a superuser or pg_mask.

use super::watched;
use crate::error::Error;
use crate::text::Text;
use crate::unguarded;
use pg_sys::FmgrHookEventType::{FHET_START, Type as Event};
use pg_sys::SysCacheIdentifier as Cache;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::{CStr, CString};

/// The search paths in which nobody's names are but PostgreSQL's.
const OWN: [&CStr; 4] = [c"pg_catalog, pg_temp", c"pg_catalog", c"", c"\"\""];

/// A function of such code that runs.
struct Running {
    owner: pg_sys::Oid,
    /// Its own search path (SET search_path), as it was set for it.
    path: Option<CString>,
}

thread_local! {
    static RUNNING: RefCell<Vec<Running>> = const { RefCell::new(Vec::new()) };
}

static mut NEEDED_BEFORE: pg_sys::needs_fmgr_hook_type = None;
static mut BEFORE: pg_sys::fmgr_hook_type = None;

/// Looks at each function that such code calls from now on. For `_PG_init`.
pub(super) fn watch() {
    // SAFETY: libraries are loaded one after the other; the functions have the signatures asked for.
    unsafe {
        NEEDED_BEFORE = pg_sys::needs_fmgr_hook;
        BEFORE = pg_sys::fmgr_hook;
        pg_sys::needs_fmgr_hook = Some(is_looked_at);
        pg_sys::fmgr_hook = Some(function);
    }
}

/// For `_PG_init`: see `prepare_thread_locals` there.
pub(super) fn prepare() {
    RUNNING.with_borrow_mut(Vec::clear);
}

/// Whether a function is looked at as it runs. PostgreSQL asks this when it looks the function up, of all but its own; one in SQL
/// that is looked at would not become a part of the statement that calls it.
#[pg_guard]
unsafe extern "C-unwind" fn is_looked_at(function: pg_sys::Oid) -> bool {
    let matters = |(_, language, has_own_path)| has_own_path || is_plpgsql(language);
    let is_ours = is_guarded() && look_up(function).is_some_and(matters);
    // SAFETY: as PostgreSQL itself would call it.
    is_ours || unsafe { NEEDED_BEFORE.is_some_and(|needed| needed(function)) }
}

/// Whether code of a table runs, in a search path that was pg_mask's. That of a refresh that had the library loaded in its midst
/// was not.
fn is_guarded() -> bool {
    let (mut role, mut marks) = (pg_sys::InvalidOid, 0);
    // SAFETY: a plain read of the backend's own state.
    unsafe { unguarded::GetUserIdAndSecContext(&raw mut role, &raw mut marks) };
    marks != 0 && watched::now().is_some() && !watched::is_late()
}

/// What is kept for one place that a function is called from.
struct Notes {
    is_entered: bool,
    /// For the library that was loaded before.
    before: pg_sys::Datum,
}

/// Called as such a function starts, once its own settings are in force, and as it ends or fails.
#[pg_guard]
unsafe extern "C-unwind" fn function(event: Event, call: *mut pg_sys::FmgrInfo, kept: *mut pg_sys::Datum) {
    // SAFETY: PostgreSQL hands over the function's look-up, and a value of ours, zero at first, that lasts as long as it.
    unsafe {
        if (*kept).is_null() {
            let size = size_of::<Notes>();
            *kept = pg_sys::Datum::from(pg_sys::MemoryContextAllocZero((*call).fn_mcxt, size));
        }
        let notes: *mut Notes = (*kept).cast_mut_ptr();
        if event == FHET_START {
            (*notes).is_entered = is_guarded();
            if (*notes).is_entered {
                enter((*call).fn_oid);
            }
        } else if (*notes).is_entered {
            RUNNING.with_borrow_mut(Vec::pop);
        }
        if let Some(before) = BEFORE {
            before(event, call, &raw mut (*notes).before);
        }
    }
}

/// A function of such code begins, or is refused.
fn enter(function: pg_sys::Oid) {
    let path = search_path();
    let Some((owner, language, has_own_path)) = look_up(function) else { return };
    if !has_own_path && is_plpgsql(language) && !OWN.contains(&&*path) {
        let is_of_its_owner = RUNNING.with_borrow(|running| {
            let of_its_path = running.iter().rev().find(|caller| caller.path.is_some());
            // SAFETY: a look-up.
            let is_trusted = |by| by == owner || unsafe { pg_sys::superuser_arg(by) };
            of_its_path.is_some_and(|caller| is_trusted(caller.owner) && caller.path.as_ref() == Some(&path))
        });
        if !is_of_its_owner {
            watched::refuse(|| Error::PathOfOthers(name_of(function)));
        }
    }
    let path = has_own_path.then_some(path);
    RUNNING.with_borrow_mut(|running| running.push(Running { owner, path }));
}

fn search_path() -> CString {
    // SAFETY: a read of the backend's own state; the value is copied.
    unsafe {
        let path = pg_sys::namespace_search_path;
        if path.is_null() { CString::default() } else { CStr::from_ptr(path).to_owned() }
    }
}

/// A function's owner and language, and whether it has a search path of its own.
fn look_up(function: pg_sys::Oid) -> Option<(pg_sys::Oid, pg_sys::Oid, bool)> {
    // SAFETY: a look-up in PostgreSQL's cache; the tuple is released when it was read. The columns are of the types that they
    // are read as (pg_proc.h).
    unsafe {
        let tuple = pg_sys::SearchSysCache1(Cache::PROCOID as i32, function.into());
        if tuple.is_null() {
            return None;
        }
        let read = |column: u32| {
            let mut is_null = false;
            let value = pg_sys::SysCacheGetAttr(Cache::PROCOID as i32, tuple, column as i16, &mut is_null);
            (!is_null).then_some(value)
        };
        let oid =
            |column| read(column).map_or(pg_sys::InvalidOid, |value| pg_sys::Oid::from(value.value() as u32));
        let settings = read(pg_sys::Anum_pg_proc_proconfig)
            .and_then(|settings| Array::<'_, Text<'_>>::from_datum(settings, false));
        let is_path = |setting: Option<Text<'_>>| {
            setting.is_some_and(|setting| setting.as_server_bytes().starts_with(b"search_path="))
        };
        let has_own_path = settings.is_some_and(|settings| settings.iter().any(is_path));
        let found = (oid(pg_sys::Anum_pg_proc_proowner), oid(pg_sys::Anum_pg_proc_prolang), has_own_path);
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}

fn is_plpgsql(language: pg_sys::Oid) -> bool {
    // SAFETY: a look-up.
    language == unsafe { pg_sys::get_language_oid(c"plpgsql".as_ptr(), true) }
}

fn name_of(function: pg_sys::Oid) -> String {
    // SAFETY: a look-up; the name is copied.
    unsafe {
        let name = pg_sys::get_func_name(function);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// Whether it is what compiles PL/pgSQL's functions when they are made. Anybody may call it, and it compiles a function in the
/// search path of the moment, whatever the function says of its own.
pub(super) fn compiles(function: pg_sys::Oid) -> bool {
    const LANVALIDATOR: i16 = 8; // pg_language.h
    // SAFETY: a look-up in PostgreSQL's cache; the tuple is released when it was read. The column is an oid (pg_language.h).
    unsafe {
        let name = pg_sys::Datum::from(c"plpgsql".as_ptr());
        let tuple = pg_sys::SearchSysCache1(Cache::LANGNAME as i32, name);
        if tuple.is_null() {
            return false;
        }
        let (column, mut is_null) = (LANVALIDATOR, false);
        let validator = pg_sys::SysCacheGetAttr(Cache::LANGNAME as i32, tuple, column, &mut is_null);
        pg_sys::ReleaseSysCache(tuple);
        !is_null && function == pg_sys::Oid::from(validator.value() as u32)
    }
}
