//! What the session has called before. PostgreSQL keeps in many places what functions in SQL and in procedural languages mean, as
//! they were called first; a session that has called some in its own search path would decide on what they mean for code of a table.
//! And what it looks up once for a session, code of the table could be the first to call, for the session.

use crate::error::Error;
use crate::plan;
use crate::text::Text;
use crate::unguarded;
use pg_sys::SysCacheIdentifier as Cache;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::CStr;

/// A function that the session has looked up.
#[derive(Clone, Copy)]
struct Called {
    function: pg_sys::Oid,
    /// Whether it looks names up in the search path of whoever calls it.
    depends_on_path: bool,
}

thread_local! {
    /// By their object ids.
    static CALLED: RefCell<Vec<Called>> = const { RefCell::new(Vec::new()) };
}

/// For `_PG_init`: see `prepare_thread_locals` there.
pub(super) fn prepare() {
    CALLED.with_borrow_mut(Vec::clear);
}

/// A function is looked up, or called, that is not for code of a table.
pub(super) fn note(function: pg_sys::Oid) {
    if function.to_u32() < pg_sys::FirstNormalObjectId {
        return;
    }
    let key = |called: &Called| called.function.to_u32();
    let place = CALLED.with_borrow(|all| all.binary_search_by_key(&function.to_u32(), key));
    if let Err(place) = place
        && let Some(depends_on_path) = interpreted(function)
    {
        CALLED.with_borrow_mut(|all| all.insert(place, Called { function, depends_on_path }));
    }
}

/// Those of the functions $1 whose look-up PostgreSQL keeps for a session: of range types, casts, operator classes and their operators.
const KEPT: &str = "SELECT pg_catalog.min(d.refobjid)
    FROM pg_catalog.pg_depend AS d
    WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = ANY ($1)
      AND (d.classid IN ('pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_cast'::pg_catalog.regclass,
              'pg_catalog.pg_amproc'::pg_catalog.regclass, 'pg_catalog.pg_opclass'::pg_catalog.regclass,
              'pg_catalog.pg_opfamily'::pg_catalog.regclass)
           OR d.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass
              AND EXISTS (SELECT FROM pg_catalog.pg_amop AS a WHERE a.amopopr = d.objid))";

/// Refuses a session that has called such functions. A superuser may have called any but those whose look-up is kept; these count
/// whatever path they set, as a schema of it may be closed to one role and open to another, and temporary types come first in it where it does
/// not name them.
pub(super) fn refuse() -> Result<(), Error> {
    // SAFETY: a read of the backend's own state, and a look-up.
    let is_superusers = unsafe { pg_sys::superuser_arg(unguarded::GetAuthenticatedUserId()) };
    refuse_maintenance()?;
    let all = CALLED.with_borrow(Vec::clone);
    if !is_superusers {
        refuse_any(&all)?;
    }
    refuse_kept(&all)
}

/// In maintenance a session is for a while whoever's whose code that is.
pub(super) fn refuse_maintenance() -> Result<(), Error> {
    // SAFETY: a read of the backend's own state.
    if unsafe { pg_sys::InSecurityRestrictedOperation() } { Err(Error::InMaintenance) } else { Ok(()) }
}

fn refuse_any(all: &[Called]) -> Result<(), Error> {
    match all.iter().find(|called| called.depends_on_path) {
        None => Ok(()),
        Some(called) => Err(Error::CalledBefore(name_of(called.function))),
    }
}

fn refuse_kept(all: &[Called]) -> Result<(), Error> {
    if all.is_empty() {
        return Ok(());
    }
    let functions: Vec<_> = all.iter().map(|called| called.function).collect();
    match plan::catalog_row(KEPT, || vec![functions.into()], |row| row.get_or_null::<pg_sys::Oid>(1))? {
        None => Ok(()),
        Some(function) => Err(Error::LookedUp(name_of(function))),
    }
}

pub(super) fn name_of(function: pg_sys::Oid) -> String {
    // SAFETY: a look-up; the name is copied.
    unsafe {
        let name = pg_sys::get_func_name(function);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// Whether a function depends on the search path of whoever calls it, if it is in SQL or a procedural language. Ours don't count.
fn interpreted(function: pg_sys::Oid) -> Option<bool> {
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
            return None;
        }
        let oid = |number| column(row, number).map(|value| pg_sys::Oid::from(value.value() as u32));
        let ours = pg_sys::get_namespace_oid(c"pgmask".as_ptr(), true);
        let is_of_interest = oid(pg_sys::Anum_pg_proc_prolang)
            .is_some_and(|language| !INTERNAL_AND_C.contains(&language))
            && oid(pg_sys::Anum_pg_proc_pronamespace) != Some(ours);
        let depends_on_path = is_of_interest
            && !column(row, pg_sys::Anum_pg_proc_proconfig).is_some_and(|settings| has_path(settings));
        pg_sys::ReleaseSysCache(row);
        is_of_interest.then_some(depends_on_path)
    }
}

/// Whether a function sets a search path that is the same for everybody.
///
/// # Safety
/// `settings` is a text[].
unsafe fn has_path(settings: pg_sys::Datum) -> bool {
    // SAFETY: by the caller.
    let settings =
        unsafe { Array::<Text<'_>>::from_polymorphic_datum(settings, false, pg_sys::TEXTARRAYOID) };
    let is_path = |entry: Text<'_>| {
        let path = entry.as_server_bytes().strip_prefix(b"search_path=");
        path.is_some_and(|path| !path.windows(5).any(|part| part == b"$user"))
    };
    settings.is_some_and(|all| all.iter().flatten().any(is_path))
}
