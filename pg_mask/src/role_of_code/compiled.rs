//! What languages keep of a function for a session: PL/pgSQL the types that it declares and the constants of its statements, as
//! the first call found them in the search path and with the settings of that moment. Code of a table has another's session for
//! a moment. So what is kept of functions while it runs is kept apart from what the session has: neither did whoever's session it is have
//! them compiled for that code, nor that code for the session.
//!
//! What is kept goes by the row of `pg_proc` that it was made from, by its address and its `xmin` (pl_comp.c, and funccache.c
//! from 18 on). While such code runs, the session's copies of these rows (syscache.c) show another `xmin`, which no other use of
//! a copy looks at: one for the login table's code, which finds what it had compiled before, and so on.

use super::called;
use super::watched::{self, Watched};
use crate::error::Error;
use crate::{own_names, unguarded};
use pg_sys::FmgrHookEventType::{FHET_START, Type as Event};
use pg_sys::SysCacheIdentifier as Cache;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};

unsafe extern "C" {
    /// The setting of that name (bytea.h).
    static mut bytea_output: i32;
}

/// The language of functions in SQL (pg_language.dat).
const SQL: pg_sys::Oid = pg_sys::Oid::from_u32(14);

/// The row of a function in the session's copy.
struct Shown {
    function: pg_sys::Oid,
    /// Its `xmin` in `pg_proc`, and what the copy shows in its place.
    real: u32,
    shown: u32,
}

thread_local! {
    /// The rows whose copies show something else.
    static SHOWN: RefCell<Vec<Shown>> = const { RefCell::new(Vec::new()) };
    /// Whose code has had functions compiled, each with a number of its own.
    static KNOWN: RefCell<Vec<(Watched, u32)>> = const { RefCell::new(Vec::new()) };
    static LAST_NUMBER: Cell<u32> = const { Cell::new(0) };
    /// The number of the code that runs now.
    static NUMBER: Cell<u32> = const { Cell::new(0) };
    /// The number of what runs beside it: event triggers, as commands of pg_mask's or PostgreSQL's own begin and end.
    static BESIDE: Cell<u32> = const { Cell::new(0) };
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
    SHOWN.with_borrow_mut(Vec::clear);
    KNOWN.with_borrow_mut(Vec::clear);
}

/// While it lives, what is kept of functions is kept apart. Calls are not counted meanwhile (`track_functions`): to begin with a
/// count, PostgreSQL hears of what others have changed, and may read a copy anew right before it is looked at.
pub(super) struct Apart {
    number_before: u32,
    beside_before: u32,
    counts_calls: i32,
}

impl Apart {
    pub(super) fn begin(whose: Watched) -> Self {
        let number_before = NUMBER.replace(number_of(whose));
        let beside_before = BESIDE.replace(new_number());
        // SAFETY: a plain write of the backend's own state (pgstat.h).
        let counts_calls = unsafe { std::ptr::replace(&raw mut pg_sys::pgstat_track_functions, 0) };
        Self { number_before, beside_before, counts_calls }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::pgstat_track_functions = self.counts_calls };
        NUMBER.set(self.number_before);
        BESIDE.set(self.beside_before);
        end();
    }
}

/// Has the copies show what the rows are: they are dropped, without a look at anything, which could fail.
fn end() {
    if !SHOWN.take().is_empty() {
        // SAFETY: a plain call, which reads nothing (catcache.c).
        unsafe { pg_sys::CatalogCacheFlushCatalog(pg_sys::ProcedureRelationId) };
    }
}

/// Whether a function is looked at as it runs: those of languages that look things up then. PostgreSQL asks this when it looks
/// the function up, of all but its own.
#[pg_guard]
unsafe extern "C-unwind" fn is_looked_at(function: pg_sys::Oid) -> bool {
    let is_code = is_code();
    if !is_code && !watched::is_late() {
        called::note(function);
    }
    let is_ours = is_code && show_another(function).is_some_and(is_of_interest);
    // SAFETY: as PostgreSQL itself would call it.
    is_ours || unsafe { was_looked_at(function) }
}

/// # Safety
/// As [`is_looked_at`].
unsafe fn was_looked_at(function: pg_sys::Oid) -> bool {
    // SAFETY: by the caller.
    unsafe { NEEDED_BEFORE.is_some_and(|needed| needed(function)) }
}

/// Called as such a function starts, and as any does that sets something or has its owner's rights, before its language looks for what it
/// has kept.
#[pg_guard]
unsafe extern "C-unwind" fn function(event: Event, call: *mut pg_sys::FmgrInfo, kept: *mut pg_sys::Datum) {
    // SAFETY: PostgreSQL hands over the function's look-up, and a value that lasts as long as it.
    unsafe {
        let function = (*call).fn_oid;
        if event == FHET_START && is_code() {
            let language = enter(function);
            if !cfg!(feature = "pg18") && language == Some(SQL) {
                forget_others(call, kept);
            }
        } else if event == FHET_START && !watched::is_late() {
            called::note(function);
        }
        if let Some(before) = BEFORE
            && was_looked_at(function)
        {
            before(event, call, kept);
        }
    }
}

/// A function of such code begins. Gives its language.
fn enter(function: pg_sys::Oid) -> Option<pg_sys::Oid> {
    if !has_plain_strings() {
        watched::refuse(|| Error::ReadsOtherwise(called::name_of(function)));
    }
    own_names::pin_path_again();
    show_another(function) // the copy may be a new one since the function was looked up
}

/// Whether statements are read as by default. Code that has changed that calls nothing, as it would be read otherwise.
fn has_plain_strings() -> bool {
    const SAFE_ENCODING: i32 = 2; // guc.h
    const HEX: i32 = 1; // bytea.h
    // SAFETY: reads of the backend's own state.
    unsafe {
        pg_sys::standard_conforming_strings
            && pg_sys::backslash_quote == SAFE_ENCODING
            && !pg_sys::Transform_null_equals
            && pg_sys::Array_nulls
            && bytea_output == HEX
    }
}

/// Whether code of a table runs now. Where a refresh had the library loaded in its midst, such code may have had functions compiled
/// already.
pub(super) fn is_code() -> bool {
    let (mut role, mut marks) = (pg_sys::InvalidOid, 0);
    // SAFETY: a plain read of the backend's own state.
    unsafe { unguarded::GetUserIdAndSecContext(&raw mut role, &raw mut marks) };
    marks != 0 && watched::now().is_some() && !watched::is_late()
}

/// The same for all code of the login table in a session, and for all of dashboards: what a batch had compiled is there for the next.
/// Any other code has one for itself.
fn number_of(whose: Watched) -> u32 {
    const MOST: usize = 8;
    KNOWN.with_borrow_mut(|known| {
        if let Some((_, number)) = known.iter().find(|(other, _)| *other == whose) {
            return *number;
        }
        let number = new_number();
        if whose.is_of_logins() {
            known.truncate(MOST - 1);
            known.insert(0, (whose, number));
        }
        number
    })
}

fn new_number() -> u32 {
    let number = LAST_NUMBER.get() % (1 << 30) + 1;
    LAST_NUMBER.set(number);
    number
}

/// Code of a table runs in a security-restricted operation, whoever owns its functions, and in a refresh while the new content of a dashboard
/// is made. What runs outside of one, before that or afterwards, is beside it.
fn number_now() -> u32 {
    // SAFETY: a plain read of the backend's own state.
    let is_of_table = unsafe { pg_sys::InSecurityRestrictedOperation() } && watched::may_be_code();
    if is_of_table { NUMBER.get() } else { BESIDE.get() }
}

/// Until 17 a function in SQL is kept with its look-up alone, which may be one for the whole session or transaction (of a range type, a cast,
/// a domain's check). So what others had compiled is left behind there, for PostgreSQL to free with the look-up.
///
/// # Safety
/// As PostgreSQL hands them over: see [`function`].
unsafe fn forget_others(call: *mut pg_sys::FmgrInfo, kept: *mut pg_sys::Datum) {
    let number = pg_sys::Datum::from(number_now());
    // SAFETY: by the caller. The value is nobody's but the hook's, and an earlier library's if that looks at this function: it stays as it is then.
    unsafe {
        if *kept != number {
            (*call).fn_extra = std::ptr::null_mut();
            if !was_looked_at((*call).fn_oid) {
                *kept = number;
            }
        }
    }
}

/// Has the copy of a function's row show an `xmin` of such code's own. Gives the function's language.
fn show_another(function: pg_sys::Oid) -> Option<pg_sys::Oid> {
    const FAR: u32 = 1 << 31;
    let number = number_now();
    change(function, |xmin| {
        SHOWN.with_borrow_mut(|all| {
            let known = all.iter_mut().find(|known| known.function == function);
            let real = known.as_ref().filter(|known| known.shown == xmin).map_or(xmin, |known| known.real);
            let shown = real.wrapping_add(FAR).wrapping_sub(number);
            match known {
                Some(known) => (known.real, known.shown) = (real, shown),
                None => all.push(Shown { function, real, shown }),
            }
            shown
        })
    })
}

/// Changes the `xmin` that the copy of a function's row shows, if there is such a function. Gives its language.
fn change(function: pg_sys::Oid, to: impl FnOnce(u32) -> u32) -> Option<pg_sys::Oid> {
    // SAFETY: a look-up in PostgreSQL's cache. The row is a copy of this process's own; it is released when it was changed. The
    // column is an oid (pg_proc.h).
    unsafe {
        let row = pg_sys::SearchSysCache1(Cache::PROCOID as i32, function.into());
        if row.is_null() {
            return None;
        }
        let xmin = &raw mut (*(*row).t_data).t_choice.t_heap.t_xmin;
        *xmin = pg_sys::TransactionId::from_inner(to((*xmin).into_inner()));
        let mut is_null = false;
        let column = pg_sys::Anum_pg_proc_prolang as i16;
        let language = pg_sys::SysCacheGetAttr(Cache::PROCOID as i32, row, column, &mut is_null);
        pg_sys::ReleaseSysCache(row);
        Some(pg_sys::Oid::from(language.value() as u32))
    }
}

/// Whether functions of a language are looked at: PL/pgSQL's and SQL's, which PostgreSQL keeps from 18 on. One in SQL that is looked at
/// is not put in place in an expression, which other code would use with other rights.
fn is_of_interest(language: pg_sys::Oid) -> bool {
    // SAFETY: a look-up.
    language == SQL || language == unsafe { pg_sys::get_language_oid(c"plpgsql".as_ptr(), true) }
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
