//! Which tables are parts of one.

use pgrx::prelude::*;

unsafe extern "C-unwind" {
    /// The tables that it is a partition of, over all levels, the root last (partition.c).
    fn get_partition_ancestors(table: pg_sys::Oid) -> *mut pg_sys::List;
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
