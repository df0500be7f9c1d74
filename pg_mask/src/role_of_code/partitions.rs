//! Which tables are parts of one.

use pgrx::prelude::*;
use std::ffi::c_int;

unsafe extern "C-unwind" {
    /// The tables that it is a partition of, over all levels, the root last (partition.c).
    fn get_partition_ancestors(table: pg_sys::Oid) -> *mut pg_sys::List;
    /// A table and those that inherit from it, over all levels (pg_inherits.c).
    fn find_all_inheritors(
        table: pg_sys::Oid,
        lock: c_int,
        parents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
}

/// The partitioned table that it is a part of, at whatever level, or itself.
pub(super) fn root_of(table: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: look-ups. The list has the ids of tables.
    unsafe {
        if !pg_sys::get_rel_relispartition(table) {
            return table;
        }
        let ancestors = pg_sys::ffi::pg_guard_ffi_boundary(|| get_partition_ancestors(table));
        cells(ancestors).last().map_or(table, |root| root.oid_value)
    }
}

/// It and its partitions, at all levels, or what inherits from it.
pub(super) fn tree_of(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: a look-up without locks; the list has the ids of tables.
    unsafe {
        let all = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            find_all_inheritors(table, pg_sys::NoLock as c_int, std::ptr::null_mut())
        });
        cells(all).iter().map(|table| table.oid_value).collect()
    }
}

/// The elements of a list of PostgreSQL's, or none.
///
/// # Safety
/// `list` is NULL or a list, which lives as long as they do.
pub(super) unsafe fn cells<'a>(list: *const pg_sys::List) -> &'a [pg_sys::ListCell] {
    // SAFETY: by the caller.
    unsafe {
        list.as_ref().map_or(&[][..], |list| std::slice::from_raw_parts(list.elements, list.length as usize))
    }
}
