//! What a table's name means when a statement is read, and whose rights to the table count.
//!
//! A statement of ours names a table, and until the moment at which PostgreSQL reads the statement, whoever owns the
//! schema can have something else behind that name: a view, whose functions would run with rights that are not
//! theirs. So what the names were read as is compared with the tables that are meant, before the statement is planned
//! or executed. From there on PostgreSQL goes by object ids.
//!
//! Whether the statement may read and write the table can be asked of its owner, while its code (triggers, checks,
//! functions in indexes) runs as somebody with fewer rights: so it is with the tables that a view of the owner's reads.
//! The names, too, are looked up as the owner then, who may do so in a schema that is closed to others; from when the
//! statement has been read on, which runs no code of anybody's, the role is the other again.

use crate::error::{Error, OrRaise};
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int};

thread_local! {
    /// What the next statement may name, and as whom it runs.
    static NEXT: RefCell<Option<(Meant, Running)>> = const { RefCell::new(None) };
    /// Whether the last one named others.
    static WAS_EXCHANGED: Cell<bool> = const { Cell::new(false) };
}

/// Whether that is why the last statement failed.
pub(crate) fn was_exchanged() -> bool {
    WAS_EXCHANGED.get()
}

/// For `_PG_init`: see `prepare_thread_locals` there.
pub(crate) fn prepare() {
    NEXT.set(None);
}

/// The hook of a library that was loaded before.
static mut BEFORE: pg_sys::post_parse_analyze_hook_type = None;

/// Looks at each statement from now on. For `_PG_init`.
pub(crate) fn watch() {
    // SAFETY: libraries are loaded one after the other; the function has the signature asked for.
    unsafe {
        BEFORE = pg_sys::post_parse_analyze_hook;
        pg_sys::post_parse_analyze_hook = Some(after_analysis);
    }
}

/// The only tables that a statement may name.
pub(crate) struct Meant {
    tables: Vec<pg_sys::Oid>,
    /// Whose rights to them are checked.
    rights_of: pg_sys::Oid,
}

impl Meant {
    /// The rights to them are those of the role that runs the statement.
    pub(crate) fn only(tables: &[pg_sys::Oid]) -> Self {
        Self::with_rights_of(pg_sys::InvalidOid, tables)
    }

    /// The rights to them are those of `role`, whoever runs the statement.
    pub(crate) fn with_rights_of(role: pg_sys::Oid, tables: &[pg_sys::Oid]) -> Self {
        Self { tables: Vec::from(tables), rights_of: role }
    }

    /// From now on it holds for the first statement that is read.
    pub(crate) fn put_in_force(self) -> InForce {
        let running = Running::now();
        if self.rights_of != pg_sys::InvalidOid {
            Running { role: self.rights_of, ..running }.again();
        }
        NEXT.set(Some((self, running)));
        WAS_EXCHANGED.set(false);
        InForce(())
    }
}

/// A role, and PostgreSQL's marks of why it is not the session's.
#[derive(Clone, Copy)]
struct Running {
    role: pg_sys::Oid,
    marks: c_int,
}

impl Running {
    fn now() -> Self {
        let mut now = Self { role: pg_sys::InvalidOid, marks: 0 };
        // SAFETY: a plain read of the backend's own state (miscinit.c).
        unsafe { pg_sys::GetUserIdAndSecContext(&raw mut now.role, &raw mut now.marks) };
        now
    }

    fn again(self) {
        // SAFETY: a plain write of the backend's own state; the end of the (sub)transaction puts it back after an error.
        unsafe { pg_sys::SetUserIdAndSecContext(self.role, self.marks) };
    }
}

pub(crate) struct InForce(());

impl Drop for InForce {
    fn drop(&mut self) {
        taken(); // still there if the statement could not be read at all
    }
}

/// What has been in force until now.
fn taken() -> Option<Meant> {
    let (meant, running) = NEXT.take()?;
    running.again();
    Some(meant)
}

#[pg_guard]
unsafe extern "C-unwind" fn after_analysis(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    if let Some(meant) = taken() {
        // SAFETY: PostgreSQL has just made the query.
        let compared = unsafe { compare(&mut *query, &meant) };
        WAS_EXCHANGED.set(compared.is_err());
        compared.or_raise();
    }
    // SAFETY: as PostgreSQL itself would call it.
    unsafe {
        if let Some(before) = BEFORE {
            before(state, query, jumble);
        }
    }
}

/// Refuses a statement that names others, and has the rights checked that are to be.
///
/// # Safety
/// `query` was just made by PostgreSQL.
unsafe fn compare(query: &mut pg_sys::Query, meant: &Meant) -> Result<(), Error> {
    // SAFETY: by the caller; a range table is a list of entries, and a subquery is a query.
    unsafe {
        for entry in elements::<pg_sys::RangeTblEntry>(query.rtable) {
            match (*entry).rtekind {
                pg_sys::RTEKind::RTE_RELATION if !meant.tables.contains(&(*entry).relid) => {
                    return Err(Error::Exchanged);
                }
                pg_sys::RTEKind::RTE_SUBQUERY => compare(&mut *(*entry).subquery, meant)?,
                _ => {}
            }
        }
        #[cfg(feature = "pg15")]
        let checked = elements::<pg_sys::RangeTblEntry>(query.rtable);
        #[cfg(not(feature = "pg15"))]
        let checked = elements::<pg_sys::RTEPermissionInfo>(query.rteperminfos);
        checked.for_each(|entry| (*entry).checkAsUser = meant.rights_of);
    }
    Ok(())
}

/// # Safety
/// `list` is NULL or a list of pointers to `T`.
unsafe fn elements<'a, T: 'a>(list: *mut pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: by the caller.
    let cells = unsafe {
        list.as_ref().map_or(&[][..], |list| std::slice::from_raw_parts(list.elements, list.length as usize))
    };
    // SAFETY: as above.
    cells.iter().map(|cell| unsafe { cell.ptr_value.cast::<T>() })
}

/// A relation's name with its schema, quoted.
///
/// # Safety
/// `class` belongs to an open relation.
pub(crate) unsafe fn qualified_name(class: &pg_sys::FormData_pg_class) -> String {
    // SAFETY: by the caller; what is returned is a copy.
    unsafe {
        let schema = pg_sys::get_namespace_name(class.relnamespace);
        let name = pg_sys::quote_qualified_identifier(schema, class.relname.data.as_ptr());
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

/// Locks a table of pg_mask's own as whoever writes into it does, so that [those who wait](crate::ingest) for older keys see who is
/// about to write what belongs to the keys that are read next. Gives its object id.
pub(crate) fn lock_own(name: &CStr) -> Result<pg_sys::Oid, Error> {
    // SAFETY: look-ups, and a lock that is kept until the transaction ends.
    unsafe {
        let table =
            pg_sys::get_relname_relid(name.as_ptr(), pg_sys::get_namespace_oid(c"pgmask".as_ptr(), true));
        if table == pg_sys::InvalidOid {
            return Err(Error::Unreadable);
        }
        pg_sys::LockRelationOid(table, pg_sys::RowExclusiveLock as i32);
        Ok(table)
    }
}

/// The table of that qualified name.
pub(crate) fn look_up(name: &CStr) -> Option<pg_sys::Oid> {
    let name = name.to_str().ok()?;
    // SAFETY: to_regclass takes a text and gives a regclass or NULL.
    unsafe { pgrx::direct_function_call(pg_sys::to_regclass, &[name.into_datum()]) }
}
