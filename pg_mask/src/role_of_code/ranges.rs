//! Functions of range types: PostgreSQL looks them up once for a session (typcache.c), and what their languages keep with that look-up
//! is used by everybody from then on. Code of a table has look-ups of its own.

use super::compiled;
use crate::catalog_scan;
use pgrx::prelude::*;

/// `pg_range` and its columns (pg_range.h).
const RANGES: pg_sys::Oid = pg_sys::Oid::from_u32(3541);
const TYPE: i32 = 1;
const CANONICAL: i32 = 6;
const DIFFERENCE: i32 = 7;

/// While it lives, functions of range types are looked up anew; then the session's own look-ups are there again.
pub(super) struct OwnLookUps {
    /// What the session has, and where.
    before: Vec<(*mut pg_sys::FmgrInfo, pg_sys::FmgrInfo)>,
    /// Where languages keep what goes with ours.
    kept: pg_sys::MemoryContext,
}

impl OwnLookUps {
    pub(super) fn begin() -> Self {
        let mut own = Self { before: Vec::new(), kept: std::ptr::null_mut() };
        let ranges = types_with_functions();
        if ranges.is_empty() {
            return own;
        }
        // SAFETY: the context lives until this is dropped. An entry of the cache lives as long as the process.
        unsafe {
            own.kept = pg_sys::AllocSetContextCreateExtended(
                pg_sys::TopMemoryContext,
                c"pg_mask: functions of range types".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            );
            for range in ranges {
                let mut entry = std::ptr::null_mut();
                let what = pg_sys::TYPECACHE_RANGE_INFO as i32;
                compiled::looked_at(|| entry = pg_sys::lookup_type_cache(range, what));
                own.replace(&raw mut (*entry).rng_canonical_finfo);
                own.replace(&raw mut (*entry).rng_subdiff_finfo);
            }
        }
        own
    }

    /// # Safety
    /// `look_up` is an entry's of PostgreSQL's cache.
    unsafe fn replace(&mut self, look_up: *mut pg_sys::FmgrInfo) {
        // SAFETY: by the caller; the function is looked up as PostgreSQL does it, before anything is replaced, as that may fail.
        unsafe {
            let function = (*look_up).fn_oid;
            if function.to_u32() < pg_sys::FirstNormalObjectId {
                return;
            }
            let mut ours = pg_sys::FmgrInfo::default();
            compiled::looked_at(|| pg_sys::fmgr_info_cxt(function, &raw mut ours, self.kept));
            self.before.push((look_up, std::ptr::replace(look_up, ours)));
        }
    }
}

impl Drop for OwnLookUps {
    fn drop(&mut self) {
        // SAFETY: plain writes; nothing of ours is in use any more.
        unsafe {
            for (look_up, before) in self.before.drain(..).rev() {
                look_up.write(before);
            }
            if !self.kept.is_null() {
                pg_sys::MemoryContextDelete(self.kept);
            }
        }
    }
}

/// The range types with functions that somebody made.
fn types_with_functions() -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    catalog_scan::find(RANGES, pg_sys::InvalidOid, [], |row| {
        let oid = |column| row.column(column).map_or(0, |value| value.value() as u32);
        if oid(CANONICAL).max(oid(DIFFERENCE)) >= pg_sys::FirstNormalObjectId {
            found.push(pg_sys::Oid::from(oid(TYPE)));
        }
        None::<()>
    });
    found
}
