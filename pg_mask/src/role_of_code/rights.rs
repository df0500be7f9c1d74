//! What `pgmask_writer` was given for one table's sake is not for code of another: who may put a table in the login table's place would
//! write with it where only pg_mask is to. So code of a table, while it runs as that role, reads and writes by its statements what the owners
//! of the table and of its partitions may read and write, too. Commands (TRUNCATE, LOCK) and the planner's statistics don't come by here.

use super::partitions::{cells, root_of, tree_of};
use super::watched::{self, Watched};
use super::writes::name_of;
use crate::error::Error;
use crate::{own_roles, unguarded};
use pg_sys::SysCacheIdentifier as Cache;
use pgrx::prelude::*;

/// A table or view that a statement names, with the rights that it needs (parsenodes.h).
#[cfg(feature = "pg15")]
type Named = pg_sys::RangeTblEntry;
#[cfg(not(feature = "pg15"))]
type Named = pg_sys::RTEPermissionInfo;

static mut BEFORE: pg_sys::ExecutorCheckPerms_hook_type = None;

/// Looks at the rights that each statement needs from now on. For `_PG_init`.
pub(super) fn watch() {
    // SAFETY: libraries are loaded one after the other; the function has the signature asked for.
    unsafe {
        BEFORE = pg_sys::ExecutorCheckPerms_hook;
        pg_sys::ExecutorCheckPerms_hook = Some(check);
    }
}

#[cfg(feature = "pg15")]
unsafe extern "C-unwind" fn check(tables: *mut pg_sys::List, raises: bool) -> bool {
    // SAFETY: PostgreSQL hands over the tables of a statement; the hook of a library that was loaded before takes the same.
    unsafe {
        look_at_code(tables);
        BEFORE.is_none_or(|before| before(tables, raises))
    }
}

#[cfg(not(feature = "pg15"))]
unsafe extern "C-unwind" fn check(
    tables: *mut pg_sys::List,
    rights: *mut pg_sys::List,
    raises: bool,
) -> bool {
    // SAFETY: PostgreSQL hands over the tables of a statement and the rights that it needs; the hook of a library that was loaded
    // before takes the same.
    unsafe {
        look_at_code(rights);
        BEFORE.is_none_or(|before| before(tables, rights, raises))
    }
}

/// It keeps nothing, so that PostgreSQL's errors may pass through it as they are.
///
/// # Safety
///
/// `named` is a list of [`Named`].
unsafe fn look_at_code(named: *const pg_sys::List) {
    let Some(Watched { role: Some(ours), table: Some(table) }) = watched::now() else { return };
    let (mut role, mut marks) = (pg_sys::InvalidOid, 0);
    // SAFETY: a plain read; the list by the caller.
    unsafe {
        unguarded::GetUserIdAndSecContext(&raw mut role, &raw mut marks);
        if role == ours && role == own_roles::writer() {
            compare(named, table);
        }
    }
}

/// Refuses what an owner of `table` or of one of its partitions may not do.
#[pg_guard]
unsafe extern "C-unwind" fn compare(named: *const pg_sys::List, table: pg_sys::Oid) {
    // SAFETY: by the caller; an entry is copied, and what it points to is only read.
    unsafe {
        for cell in cells(named) {
            let entry = *cell.ptr_value.cast::<Named>();
            // A view's tables are its owner's to read.
            if entry.requiredPerms == 0
                || entry.checkAsUser != pg_sys::InvalidOid
                || root_of(entry.relid) == table
            {
                continue;
            }
            let may_not = |part: &pg_sys::Oid| {
                owner_of(*part).is_some_and(|owner| !may(Named { checkAsUser: owner, ..entry }))
            };
            if let Some(part) = tree_of(table).into_iter().find(may_not) {
                watched::refuse(|| Error::NotOwnersToUse {
                    other: name_of(entry.relid),
                    table: name_of(part),
                });
            }
        }
    }
}

/// `None` if it was dropped.
fn owner_of(table: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a look-up; the row is released once its column, which is never NULL, was read (pg_class.h).
    unsafe {
        let row = pg_sys::SearchSysCache1(Cache::RELOID as i32, table.into());
        if row.is_null() {
            return None;
        }
        let mut is_null = false;
        let owner = pg_sys::SysCacheGetAttr(
            Cache::RELOID as i32,
            row,
            pg_sys::Anum_pg_class_relowner as i16,
            &raw mut is_null,
        );
        pg_sys::ReleaseSysCache(row);
        Some(pg_sys::Oid::from(owner.value() as u32))
    }
}

/// Whether the role that an entry names has the rights in it.
fn may(mut entry: Named) -> bool {
    // SAFETY: an entry of the server's own, with another role.
    unsafe {
        #[cfg(feature = "pg15")]
        let may = pg_sys::ExecCheckRTEPerms(&raw mut entry);
        #[cfg(not(feature = "pg15"))]
        let may = pg_sys::ExecCheckOneRelPerms(&raw mut entry);
        may
    }
}
