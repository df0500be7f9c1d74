//! What PostgreSQL itself keeps for a session of what functions in SQL mean: it puts them in place as it makes an expression ready,
//! in the search path of that moment, and keeps the checks of domains (typcache.c), expressions and predicates of indexes and keys of
//! partitions (relcache.c, partcache.c), the casts of PL/pgSQL, and the dictionaries of text search (ts_cache.c), which may name others.

use crate::error::Error;
use crate::plan;
use pg_sys::SysCacheIdentifier as Cache;
use pgrx::PgTupleDesc;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::CStr;

thread_local! {
    /// Whether that was to be dropped when nothing could be looked up.
    static IS_PENDING: Cell<bool> = const { Cell::new(false) };
}

/// Drops it, as PostgreSQL does where a session has missed what others have changed.
pub(crate) fn refresh() {
    IS_PENDING.set(true);
    // SAFETY: plain calls (relcache.c, inval.c), as at any lock that is waited for. Relations that are open are read anew, which may
    // have to wait, and fail.
    unsafe {
        for cache in [
            Cache::CONSTROID,
            Cache::TYPEOID,
            Cache::PROCOID,
            Cache::TSPARSEROID,
            Cache::TSDICTOID,
            Cache::TSCONFIGOID,
        ] {
            pg_sys::CallSyscacheCallbacks(cache as i32, 0);
        }
        pg_sys::RelationCacheInvalidate(false);
    }
    IS_PENDING.set(false);
}

/// While it lives, code runs; then it is dropped, at once or, after an error, as soon as something may be looked up.
pub(crate) struct Refreshed(());

impl Refreshed {
    pub(crate) fn begin() -> Self {
        refresh();
        Self(())
    }
}

impl Drop for Refreshed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            IS_PENDING.set(true);
        } else {
            refresh();
        }
    }
}

/// Has it dropped as soon as something may be looked up: what is open now would be read anew as it is kept.
pub(crate) fn refresh_later() {
    IS_PENDING.set(true);
}

/// Does what is pending. Called where statements begin, and once a subtransaction was rolled back.
pub(crate) fn refresh_if_pending() {
    if IS_PENDING.get() {
        refresh();
    }
}

/// Whether that is to be done.
pub(crate) fn is_pending() -> bool {
    IS_PENDING.get()
}

/// Whether a table, which is locked, has anything that can run code: triggers, rules, policies, checks, defaults, types that somebody made,
/// expressions of indexes, extended statistics, or partitions.
pub(crate) fn can_run_code(table: pg_sys::Oid) -> bool {
    look(table, |open| open.runs_code_for_a_row() || open.runs_code_for_a_reader())
}

/// The same for whoever reads it: triggers and rules are for rows that come.
pub(crate) fn can_run_code_for_a_reader(table: pg_sys::Oid) -> bool {
    look(table, Open::runs_code_for_a_reader)
}

fn look(table: pg_sys::Oid, at: impl FnOnce(&Open) -> bool) -> bool {
    // SAFETY: the relation stays open while it is looked at.
    unsafe {
        let relation = pg_sys::relation_open(table, pg_sys::NoLock as i32);
        let found = at(&Open(relation));
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        found
    }
}

/// A table that is open.
struct Open(pg_sys::Relation);

impl Open {
    fn runs_code_for_a_row(&self) -> bool {
        // SAFETY: it is open, and so are its parts.
        unsafe {
            let triggers = match (*self.0).trigdesc.as_ref() {
                Some(all) => std::slice::from_raw_parts(all.triggers, all.numtriggers as usize),
                None => &[],
            };
            // A key that may be checked later has a trigger of PostgreSQL's own, which compares built-in values.
            triggers.iter().any(|trigger| trigger.tgfoid != pg_sys::F_UNIQUE_KEY_RECHECK.into())
                || (*(*self.0).rd_rel).relhasrules
        }
    }

    fn runs_code_for_a_reader(&self) -> bool {
        // SAFETY: as above.
        unsafe {
            let class = &*(*self.0).rd_rel;
            let columns = PgTupleDesc::from_pg_unchecked((*self.0).rd_att);
            let constraints = (*(*self.0).rd_att).constr.as_ref();
            class.relrowsecurity
                || class.relhassubclass // and those have what they like
                || class.relkind as u8 != pg_sys::RELKIND_RELATION
                || class.relispartition
                // A column that is computed as it is read has its expression in place of a default.
                || constraints.is_some_and(|all| all.num_defval > 0 || all.num_check > 0)
                || columns.iter().any(|column| column.atttypid.to_u32() >= pg_sys::FirstNormalObjectId)
                || !pg_sys::RelationGetStatExtList(self.0).is_null()
                || has_expressions(self.0)
        }
    }
}

/// # Safety
/// `relation` is open.
unsafe fn has_expressions(relation: pg_sys::Relation) -> bool {
    // SAFETY: by the caller; the list has object ids, and is a copy. Rows of the cache are released when they were read.
    unsafe {
        let list = pg_sys::RelationGetIndexList(relation);
        let indexes = match list.as_ref() {
            Some(list) => std::slice::from_raw_parts(list.elements, list.length as usize),
            None => &[],
        };
        indexes.iter().any(|index| {
            let row = pg_sys::SearchSysCache1(Cache::INDEXRELID as i32, index.oid_value.into());
            if row.is_null() {
                return true;
            }
            let is_set = |column: u32| {
                let mut is_null = false;
                pg_sys::SysCacheGetAttr(Cache::INDEXRELID as i32, row, column as i16, &mut is_null);
                !is_null
            };
            let has = is_set(pg_sys::Anum_pg_index_indexprs)
                || is_set(pg_sys::Anum_pg_index_indpred)
                || has_others_classes(index.oid_value);
            pg_sys::ReleaseSysCache(row);
            has
        })
    }
}

/// Whether an index compares values by operator classes that somebody made.
fn has_others_classes(index: pg_sys::Oid) -> bool {
    // SAFETY: the index stays open while it is looked at; it has as many families as columns of its key.
    unsafe {
        let index = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
        let columns = (*(*index).rd_index).indnkeyatts as usize;
        let families = std::slice::from_raw_parts((*index).rd_opfamily, columns);
        let has = families.iter().any(|family| family.to_u32() >= pg_sys::FirstNormalObjectId);
        pg_sys::index_close(index, pg_sys::NoLock as i32);
        has
    }
}

/// What is locked in this transaction and has expressions with functions or operators that somebody made: indexes, and tables that are
/// partitioned by some. (What is PostgreSQL's own is not in pg_depend.)
const LOCKED: &str = "SELECT l.relation
    FROM pg_catalog.pg_locks AS l
    WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation'
      AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
      AND (EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indexrelid = l.relation AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL))
           OR EXISTS (SELECT FROM pg_catalog.pg_partitioned_table AS p WHERE p.partrelid = l.relation AND p.partexprs IS NOT NULL))
      AND EXISTS (SELECT FROM pg_catalog.pg_depend AS d
          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = l.relation
            AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass))";

/// Refuses a session that has such a thing open: PostgreSQL goes on with what it keeps of it.
pub(crate) fn refuse_open_ones() -> Result<(), Error> {
    for id in plan::catalog(LOCKED, Vec::new, |row| row.get::<pg_sys::Oid>(1))? {
        // SAFETY: what is there is closed again; its name is copied.
        unsafe {
            let relation = pg_sys::RelationIdGetRelation(id);
            let Some(open) = relation.as_ref() else { continue };
            let is_in_use = open.rd_refcnt > 1;
            let name = CStr::from_ptr((*open.rd_rel).relname.data.as_ptr()).to_string_lossy().into_owned();
            pg_sys::RelationClose(relation);
            if is_in_use {
                return Err(Error::OpenMeanwhile(name));
            }
        }
    }
    Ok(())
}
