//! Reads one of PostgreSQL's own catalogs by an index, without SQL.

use pgrx::prelude::*;

/// A row of a catalog, while it is read.
pub(crate) struct Row {
    catalog: pg_sys::Relation,
    tuple: pg_sys::HeapTuple,
}

impl Row {
    /// A column's value; `None` for NULL.
    pub(crate) fn column(&self, number: i32) -> Option<pg_sys::Datum> {
        let mut is_null = false;
        // SAFETY: the catalog is open, and the tuple is its scan's.
        let value = unsafe { pg_sys::heap_getattr(self.tuple, number, (*self.catalog).rd_att, &mut is_null) };
        (!is_null).then_some(value)
    }
}

/// The first answer that `look` gives for a row with these values in its `oid` columns, which `index` begins with.
pub(crate) fn find<R>(
    catalog: pg_sys::Oid,
    index: pg_sys::Oid,
    columns: [(i16, pg_sys::Oid); 2],
    mut look: impl FnMut(&Row) -> Option<R>,
) -> Option<R> {
    let mut keys = columns.map(|(column, oid)| {
        let mut key = pg_sys::ScanKeyData::default();
        // SAFETY: it fills in `key`: the column's type is oid.
        unsafe {
            let equal = pg_sys::BTEqualStrategyNumber as u16;
            pg_sys::ScanKeyInit(&raw mut key, column, equal, pg_sys::F_OIDEQ.into(), oid.into());
        }
        key
    });
    // SAFETY: PostgreSQL's own way to read a catalog (genam.c); an error on the way closes all of it.
    unsafe {
        let catalog = pg_sys::table_open(catalog, pg_sys::AccessShareLock as i32);
        let newest = std::ptr::null_mut();
        let scan = pg_sys::systable_beginscan(catalog, index, true, newest, 2, keys.as_mut_ptr());
        let mut found = None;
        while found.is_none() {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            found = look(&Row { catalog, tuple });
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
        found
    }
}
