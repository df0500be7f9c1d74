//! When PostgreSQL has filled the new content of a dashboard. Until then what runs is its query, with code of tables; what comes
//! after that for REFRESH … CONCURRENTLY are commands of PostgreSQL's own on temporary tables (matview.c).

use super::{compiled, watched};
use crate::{own_names, session_caches, unguarded};
use pgrx::prelude::*;

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

/// It has no guard and keeps nothing, so that PostgreSQL's errors may pass through it as they are.
unsafe extern "C-unwind" fn end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: PostgreSQL hands over a query, which need not have a destination; a plain read of the backend's own state.
    unsafe {
        let fills = (*query)
            .dest
            .as_ref()
            .is_some_and(|destination| destination.mydest == pg_sys::CommandDest::DestTransientRel);
        if fills {
            let (mut role, mut marks) = (pg_sys::InvalidOid, 0);
            unguarded::GetUserIdAndSecContext(&raw mut role, &raw mut marks);
            watched::filled_by(role);
        }
        NEXT(query);
        if fills && watched::is_filled() {
            code_ended();
        } else if watched::now().is_some() {
            statement_of_code_ended();
        }
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
