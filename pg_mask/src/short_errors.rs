//! Calls of PostgreSQL that run code of others. What that code raises may have hundreds of megabytes of text, and pgrx copies
//! each text of an error on its way to Rust: without memory for that, the process would end, and all of the server's
//! with it. So each text is cut before.

use crate::error::{Error, OrRaise};
use cee_scape::call_with_sigsetjmp;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_long};
use std::mem::MaybeUninit;
use std::ptr;

/// The bytes that are left of a text.
const LONGEST: usize = 8 << 10;

thread_local! {
    /// Where code was when it raised the last error (CONTEXT), which pgrx has no field for; none where nobody asks.
    static CONTEXT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// For `_PG_init`: see `prepare_thread_locals` there.
pub(crate) fn prepare() {
    CONTEXT.set(None);
}

/// Has the context of errors kept from now on, until one is [taken](take_context).
pub(crate) fn keep_context() {
    CONTEXT.set(Some(String::new()));
}

/// The context of the last error: a line for each function that was at work, the innermost first.
pub(crate) fn take_context() -> Option<String> {
    CONTEXT.take().filter(|context| !context.is_empty())
}

unsafe extern "C-unwind" {
    /// spi.c
    fn SPI_execute_plan(
        plan: pg_sys::SPIPlanPtr,
        values: *mut pg_sys::Datum,
        nulls: *const c_char,
        is_read_only: bool,
        most_rows: c_long,
    ) -> c_int;
    /// spi.c
    fn SPI_execute_with_args(
        sql: *const c_char,
        count: c_int,
        types: *mut pg_sys::Oid,
        values: *mut pg_sys::Datum,
        nulls: *const c_char,
        is_read_only: bool,
        most_rows: c_long,
    ) -> c_int;
    /// spi.c
    fn SPI_plan_get_cached_plan(plan: pg_sys::SPIPlanPtr) -> *mut pg_sys::CachedPlan;
    /// plancache.c
    fn ReleaseCachedPlan(plan: *mut pg_sys::CachedPlan, owner: pg_sys::ResourceOwner);
    /// A copy of the error that was raised (elog.c).
    fn CopyErrorData() -> *mut pg_sys::ErrorData;
    /// Raises it again (elog.c).
    fn ReThrowError(error: *mut pg_sys::ErrorData);
}

/// PostgreSQL's `SPI_execute_plan` for one that writes.
///
/// # Safety
/// SPI is connected; `values` are as many as the plan's parameters, and none is NULL.
pub(crate) unsafe fn execute_plan(plan: pg_sys::SPIPlanPtr, values: &mut [pg_sys::Datum]) -> c_int {
    // SAFETY: by the caller.
    unsafe { raising_short(|| SPI_execute_plan(plan, values.as_mut_ptr(), ptr::null(), false, 0)) }
}

/// Has PostgreSQL read the statement of a plan that is kept, and plan it, where it would do so to execute it.
///
/// # Safety
/// SPI is connected.
pub(crate) unsafe fn make_plan(plan: pg_sys::SPIPlanPtr) {
    // SAFETY: by the caller; what is made is kept with `plan`, beside the use of it that ends here.
    unsafe {
        raising_short(|| {
            let made = SPI_plan_get_cached_plan(plan);
            if !made.is_null() {
                ReleaseCachedPlan(made, pg_sys::CurrentResourceOwner);
            }
            0
        });
    }
}

/// PostgreSQL's `SPI_execute_with_args`.
///
/// # Safety
/// SPI is connected; `types` and `values` belong together, and no value is NULL.
pub(crate) unsafe fn execute_with_args(
    sql: &CStr,
    types: &mut [pg_sys::Oid],
    values: &mut [pg_sys::Datum],
    is_read_only: bool,
) -> c_int {
    let (sql, count) = (sql.as_ptr(), types.len() as c_int);
    let (types, values) = (types.as_mut_ptr(), values.as_mut_ptr());
    // SAFETY: by the caller.
    unsafe {
        raising_short(|| SPI_execute_with_args(sql, count, types, values, ptr::null(), is_read_only, 0))
    }
}

/// # Safety
/// `call` is a call of PostgreSQL's and nothing else: an error jumps out of it.
unsafe fn raising_short(call: impl FnOnce() -> c_int) -> c_int {
    // SAFETY: by the caller; what was copied is an error, and is there until it is raised again.
    unsafe {
        if let Some(done) = caught(call) {
            return done;
        }
        let copy = caught(|| CopyErrorData());
        pg_sys::FlushErrorState();
        match copy {
            None => Err::<(), _>(Error::Memory).or_raise(), // there was none for the copy
            Some(error) => {
                cut(&mut *error);
                note_context(&*error);
                pg_sys::ffi::pg_guard_ffi_boundary(|| ReThrowError(error));
            }
        }
    }
    unreachable!("an error was raised")
}

/// # Safety
/// The error's context is NULL or a text.
unsafe fn note_context(error: &pg_sys::ErrorData) {
    CONTEXT.with_borrow_mut(|kept| {
        if let Some(kept) = kept
            && !error.context.is_null()
        {
            // SAFETY: by the caller; it is copied.
            *kept = unsafe { CStr::from_ptr(error.context).to_string_lossy().into_owned() };
        }
    });
}

/// What `call` gives, or nothing if it raised an error, as PostgreSQL's own PG_TRY does (elog.h).
///
/// # Safety
/// As for [`raising_short`].
unsafe fn caught<R: Copy>(call: impl FnOnce() -> R) -> Option<R> {
    // SAFETY: the place that an error jumps to is there as long as PostgreSQL knows of it.
    unsafe {
        let (stack, contexts) = (pg_sys::PG_exception_stack, pg_sys::error_context_stack);
        let memory = pg_sys::CurrentMemoryContext;
        let mut done = MaybeUninit::uninit();
        let jumped = call_with_sigsetjmp(false, |place| {
            pg_sys::PG_exception_stack = ptr::from_ref(place).cast_mut().cast();
            done.write(call());
            0
        });
        pg_sys::PG_exception_stack = stack;
        pg_sys::error_context_stack = contexts;
        if jumped == 0 {
            return Some(done.assume_init());
        }
        pg_sys::MemoryContextSwitchTo(memory);
        None
    }
}

/// Cuts its texts, at a character's end.
///
/// # Safety
/// Each text is NULL or the error's own.
unsafe fn cut(error: &mut pg_sys::ErrorData) {
    let texts = [
        &mut error.message,
        &mut error.detail,
        &mut error.detail_log,
        &mut error.hint,
        &mut error.context,
        &mut error.internalquery,
    ];
    for text in texts.into_iter().filter(|text| !text.is_null()) {
        // SAFETY: by the caller; a text ends with a 0, and what is longer is freed once its beginning was copied.
        unsafe {
            let length = libc::strnlen(*text, LONGEST + 1);
            if length > LONGEST {
                let end = pg_sys::pg_mbcliplen(*text, LONGEST as c_int, LONGEST as c_int);
                let beginning = pg_sys::pnstrdup(*text, end as usize);
                pg_sys::pfree(text.cast());
                *text = beginning;
            }
        }
    }
}
