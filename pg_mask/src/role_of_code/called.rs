//! What the session has called before. PostgreSQL keeps in many places what functions in SQL and in procedural languages mean, as
//! they were called first; a session that has called some in its own search path would decide on what they mean for code of a table.

use crate::error::Error;
use crate::text::Text;
use crate::unguarded;
use pg_sys::SysCacheIdentifier as Cache;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::CStr;

thread_local! {
    /// The first such function.
    static FIRST: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::InvalidOid) };
}

/// A function is looked up that is not for code of a table.
pub(super) fn note(function: pg_sys::Oid) {
    if FIRST.get() == pg_sys::InvalidOid
        && function.to_u32() >= pg_sys::FirstNormalObjectId
        && depends_on_names(function)
    {
        FIRST.set(function);
    }
}

/// Refuses a session that has called such a function, but for a superuser's, who needs none.
pub(super) fn refuse() -> Result<(), Error> {
    let function = FIRST.get();
    // SAFETY: a read of the backend's own state, and a look-up.
    if function == pg_sys::InvalidOid || unsafe { pg_sys::superuser_arg(unguarded::GetAuthenticatedUserId()) }
    {
        return Ok(());
    }
    Err(Error::CalledBefore(name_of(function)))
}

pub(super) fn name_of(function: pg_sys::Oid) -> String {
    // SAFETY: a look-up; the name is copied.
    unsafe {
        let name = pg_sys::get_func_name(function);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// Whether a function looks names up, in the search path of whoever calls it. Ours don't, nor do those in C.
fn depends_on_names(function: pg_sys::Oid) -> bool {
    const INTERNAL_AND_C: [pg_sys::Oid; 2] = [pg_sys::Oid::from_u32(12), pg_sys::Oid::from_u32(13)]; // pg_language.dat
    let column = |row, column: u32| {
        let mut is_null = false;
        // SAFETY: the row is there, and of pg_proc.
        let value =
            unsafe { pg_sys::SysCacheGetAttr(Cache::PROCOID as i32, row, column as i16, &mut is_null) };
        (!is_null).then_some(value)
    };
    // SAFETY: a look-up in PostgreSQL's cache; the row is released when it was read. The columns are of the types that they are
    // read as (pg_proc.h).
    unsafe {
        let row = pg_sys::SearchSysCache1(Cache::PROCOID as i32, function.into());
        if row.is_null() {
            return false;
        }
        let oid = |number| column(row, number).map(|value| pg_sys::Oid::from(value.value() as u32));
        let ours = pg_sys::get_namespace_oid(c"pgmask".as_ptr(), true);
        let depends = oid(pg_sys::Anum_pg_proc_prolang)
            .is_some_and(|language| !INTERNAL_AND_C.contains(&language))
            && oid(pg_sys::Anum_pg_proc_pronamespace) != Some(ours)
            && !column(row, pg_sys::Anum_pg_proc_proconfig).is_some_and(|settings| has_path(settings));
        pg_sys::ReleaseSysCache(row);
        depends
    }
}

/// # Safety
/// `settings` is a text[].
unsafe fn has_path(settings: pg_sys::Datum) -> bool {
    // SAFETY: by the caller.
    let settings =
        unsafe { Array::<Text<'_>>::from_polymorphic_datum(settings, false, pg_sys::TEXTARRAYOID) };
    settings.is_some_and(|all| {
        all.iter().flatten().any(|entry| entry.as_server_bytes().starts_with(b"search_path="))
    })
}
