//! Into which tables code may not write: the table that pg_mask inserts into or lifts tokens of, and its partitions, since
//! others decide what that code may call, and may not have rows of theirs come in with it; what follows a foreign key, since
//! PostgreSQL writes that as the table's owner, with whoever's triggers; and the new content of a dashboard.

use super::filled;
use super::partitions::{cells, root_of};
use super::watched::{self, Watched};
use crate::error::Error;
use crate::{own_roles, session_caches, unguarded};
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::{CStr, c_int};

thread_local! {
    /// Whether the next statement that writes into that table is pg_mask's own.
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, a statement of pg_mask's own that writes into a table.
pub(crate) fn own<R>(work: impl FnOnce() -> R) -> R {
    struct Ended;
    impl Drop for Ended {
        fn drop(&mut self) {
            OWN.set(false); // still there if the statement did not come that far
        }
    }
    let _ended = Ended;
    OWN.set(true);
    work()
}

/// `ExecutorStart_hook`'s (executor.h).
type Start = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc, c_int);

unsafe extern "C-unwind" {
    /// PostgreSQL's own (execMain.c), without the guard that pgrx puts around it: an error that passes through that loses
    /// what pgrx has no field for.
    fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
}

/// What starts a statement: the hook of a library that was loaded before, or PostgreSQL itself.
static mut NEXT: Start = standard_ExecutorStart;

/// Looks at each statement from now on. For `_PG_init`.
pub(super) fn watch() {
    // SAFETY: libraries are loaded one after the other; the function has the signature asked for.
    unsafe {
        if let Some(before) = pg_sys::ExecutorStart_hook {
            NEXT = before;
        }
        pg_sys::ExecutorStart_hook = Some(start);
    }
}

/// It has no guard and keeps nothing, so that PostgreSQL's errors may pass through it as they are.
unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: PostgreSQL hands over a query that has a plan.
    unsafe {
        let (mut role, mut marks) = (pg_sys::InvalidOid, 0);
        unguarded::GetUserIdAndSecContext(&raw mut role, &raw mut marks);
        let plan = (*query).plannedstmt;
        if marks == 0 && session_caches::is_pending() {
            refresh();
        }
        if marks != 0 && watched::now().is_some() {
            (*plan).parallelModeNeeded = false; // nobody looks at what parallel workers do
        }
        if marks != 0 && !(*plan).resultRelations.is_null() {
            look_at(plan, role, marks);
        }
        filled::starts(query, role);
        NEXT(query, flags);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn refresh() {
    session_caches::refresh_if_pending();
}

/// Refuses a statement that writes where it may not now.
#[pg_guard]
unsafe extern "C-unwind" fn look_at(plan: *mut pg_sys::PlannedStmt, role: pg_sys::Oid, marks: c_int) {
    let watched = watched::now();
    let is_refresher = own_roles::is_refresher(role);
    if watched.is_none() && !is_refresher {
        return;
    }
    // SAFETY: the numbers, from 1, of a plan's tables, which are there (plannodes.h).
    let mut written = unsafe {
        let tables = cells((*plan).rtable);
        cells((*plan).resultRelations).iter().map(|number| {
            let table: *const pg_sys::RangeTblEntry = tables[number.int_value as usize - 1].ptr_value.cast();
            (*table).relid
        })
    };
    // PostgreSQL marks so what it does for a foreign key (ri_triggers.c).
    let follows_a_key = marks as u32 & pg_sys::SECURITY_NOFORCE_RLS != 0;
    if watched.is_some_and(|watched| watched.role.is_some()) && follows_a_key {
        let followed = written.next().map(name_of).unwrap_or_default();
        watched::refuse(|| Error::FollowsKey(followed.clone()));
    }
    let is_guarded = |table: &pg_sys::Oid| match watched {
        Some(Watched { table: Some(ours), .. }) => root_of(*table) == ours,
        _ => is_refresher && is_new_content(*table),
    };
    // A rule may have other tables written first.
    if let Some(table) = written.find(is_guarded)
        && !OWN.take()
    {
        watched::refuse(|| Error::WritesBeside(name_of(table)));
    }
}

/// Whether it is what PostgreSQL fills in place of a materialized view (`make_new_heap` in cluster.c), whose name nothing
/// else has: it is followed by the view's object id. A concurrent refresh also notes in a table of its own which rows of the view have to change
/// (matview.c, `refresh_by_match_merge`), and nobody but PostgreSQL writes there.
fn is_new_content(table: pg_sys::Oid) -> bool {
    let name = name_of(table);
    let Some(id) = name.strip_prefix("pg_temp_") else { return false };
    let (id, is_of_changes) = id.strip_suffix("_2").map_or((id, false), |id| (id, true));
    id.bytes().all(|byte| byte.is_ascii_digit())
        && (!is_of_changes || watched::is_filled() && !watched::is_postgresqls_turn())
}

pub(super) fn name_of(table: pg_sys::Oid) -> String {
    // SAFETY: a look-up; the name is copied.
    unsafe {
        let name = pg_sys::get_rel_name(table);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}
