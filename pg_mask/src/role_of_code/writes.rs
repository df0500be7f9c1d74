//! Into which tables code may not write: the login table while pg_mask inserts into it or lifts its tokens, since others
//! decide what the role of its code may call, and may not have rows of theirs come in as that role; and the new content of a
//! dashboard that is being refreshed.

use super::watched::role_of_code;
use crate::error::{Error, OrRaise};
use crate::named_tables::look_up;
use crate::{own_roles, settings, unguarded};
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::{CStr, c_int};

thread_local! {
    /// Whether the next statement that writes into the login table is pg_mask's own.
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
    /// The tables that it is a partition of, over all levels (partition.c).
    fn get_partition_ancestors(table: pg_sys::Oid) -> *mut pg_sys::List;
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
        if marks != 0 && !(*plan).resultRelations.is_null() {
            look_at(plan, role);
        }
        NEXT(query, flags);
    }
}

/// Refuses a statement that writes where `role` may not now.
#[pg_guard]
unsafe extern "C-unwind" fn look_at(plan: *mut pg_sys::PlannedStmt, role: pg_sys::Oid) {
    let is_code_of_a_table = role_of_code() == Some(role);
    if !is_code_of_a_table && !own_roles::is_refresher(role) {
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
    let is_guarded = |table: &pg_sys::Oid| match is_code_of_a_table {
        true => is_of_the_login_table(*table),
        false => is_new_content(*table),
    };
    // A rule may have other tables written first.
    if let Some(table) = written.find(is_guarded)
        && !OWN.take()
    {
        Err::<(), _>(Error::WritesBeside(name_of(table))).or_raise();
    }
}

/// Whether it is `pgmask.login_table` or one of its partitions.
fn is_of_the_login_table(table: pg_sys::Oid) -> bool {
    let login_table = look_up(&settings::login_table());
    // SAFETY: a look-up; the list has the ids of tables.
    let mut tables = unsafe {
        let ancestors = cells(pg_sys::ffi::pg_guard_ffi_boundary(|| get_partition_ancestors(table)));
        ancestors.iter().map(|cell| cell.oid_value).chain([table])
    };
    login_table.is_some_and(|login_table| tables.any(|table| table == login_table))
}

/// Whether it is what PostgreSQL fills in place of a materialized view (`make_new_heap` in cluster.c), whose name nothing
/// else has: it is followed by the view's object id.
fn is_new_content(table: pg_sys::Oid) -> bool {
    let name = name_of(table);
    name.strip_prefix("pg_temp_").is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_digit()))
}

fn name_of(table: pg_sys::Oid) -> String {
    // SAFETY: a look-up; the name is copied.
    unsafe {
        let name = pg_sys::get_rel_name(table);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// The elements of a list of PostgreSQL's, or none.
///
/// # Safety
/// `list` is NULL or a list, which lives as long as they do.
unsafe fn cells<'a>(list: *const pg_sys::List) -> &'a [pg_sys::ListCell] {
    // SAFETY: by the caller.
    unsafe {
        list.as_ref().map_or(&[][..], |list| std::slice::from_raw_parts(list.elements, list.length as usize))
    }
}
