//! When PostgreSQL has filled the new content of a dashboard. Until then what runs is its query, with code of tables; what comes
//! after that for REFRESH … CONCURRENTLY are commands of PostgreSQL's own on temporary tables (matview.c).

use super::{compiled, watched};
use crate::{own_names, session_caches, unguarded};
use pgrx::prelude::*;
use std::ffi::CStr;

/// `ExecutorEnd_hook`'s (executor.h).
type End = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc);

unsafe extern "C-unwind" {
    /// PostgreSQL's own (execMain.c), without the guard that pgrx puts around it: an error that passes through that loses
    /// what pgrx has no field for.
    fn standard_ExecutorEnd(query: *mut pg_sys::QueryDesc);
}

/// What ends a statement: the hook of a library that was loaded before, or PostgreSQL itself.
static mut NEXT: End = standard_ExecutorEnd;

/// Looks at the end of each statement from now on. For `_PG_init`.
pub(super) fn watch() {
    // SAFETY: libraries are loaded one after the other; the function has the signature asked for.
    unsafe {
        if let Some(before) = pg_sys::ExecutorEnd_hook {
            NEXT = before;
        }
        pg_sys::ExecutorEnd_hook = Some(end);
    }
}

/// Takes note of a statement that starts, if that is what fills a dashboard. Where it goes to is known now: once a cursor's rows
/// were fetched, its statement still names where they went to, which is gone (pquery.c, `PortalRunSelect`).
///
/// # Safety
///
/// `query` is one that starts.
pub(super) unsafe fn starts(query: *const pg_sys::QueryDesc, role: pg_sys::Oid) {
    // SAFETY: so it is; it need not have a destination.
    if unsafe { is_new_content((*query).dest) } {
        watched::fills(query, role);
    }
}

/// It has no guard and keeps nothing, so that PostgreSQL's errors may pass through it as they are.
unsafe extern "C-unwind" fn end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: PostgreSQL hands over a query that was started.
    unsafe {
        let fills = watched::is_filled_by(query) || watched::is_late() && fills_late(query);
        NEXT(query);
        if fills {
            watched::filled();
            code_ended();
        } else if watched::now().is_some() {
            statement_of_code_ended();
        }
    }
}

/// Whether a statement that ends fills the dashboard: looked at now, where it had started before the library was loaded.
///
/// # Safety
///
/// `query` was started.
unsafe fn fills_late(query: *const pg_sys::QueryDesc) -> bool {
    // SAFETY: so it was; what is no cursor's has its destination until it has ended.
    unsafe {
        let (mut role, mut marks) = (pg_sys::InvalidOid, 0);
        unguarded::GetUserIdAndSecContext(&raw mut role, &raw mut marks);
        watched::is_for(role) && !is_a_cursors(query) && is_new_content((*query).dest)
    }
}

/// Whether it is what REFRESH hands rows to (matview.c, `CreateTransientRelDestReceiver`).
///
/// # Safety
///
/// It is there, or null.
unsafe fn is_new_content(destination: *const pg_sys::DestReceiver) -> bool {
    // SAFETY: so it is.
    unsafe {
        destination.as_ref().is_some_and(|receiver| receiver.mydest == pg_sys::CommandDest::DestTransientRel)
    }
}

/// Whether a statement that ends is a cursor's: its memory belongs to a portal (pquery.c, `PortalStart`) that is not the one at work.
///
/// # Safety
///
/// `query` was started.
unsafe fn is_a_cursors(query: *const pg_sys::QueryDesc) -> bool {
    // SAFETY: memory of a statement that was started is there until it has ended, and what that memory belongs to.
    unsafe {
        let context = (*(*(*query).estate).es_query_cxt).parent;
        let at_work = pg_sys::ActivePortal.as_ref().map(|portal| portal.portalContext);
        CStr::from_ptr((*context).name) == c"PortalContext" && at_work != Some(context)
    }
}

/// What comes now looks names up in no path that code has set, and uses nothing that PostgreSQL has kept of what that path made of indexes,
/// checks and keys of partitions, of whichever tables.
#[pg_guard]
unsafe extern "C-unwind" fn code_ended() {
    own_names::pin_path();
    session_caches::refresh();
}

/// By set_config() code may have put the search path back to what the client's session began with.
#[pg_guard]
unsafe extern "C-unwind" fn statement_of_code_ended() {
    if compiled::is_code() {
        own_names::pin_path_again();
    }
}
