//! What a table's name means when a statement is read.
//!
//! A statement that runs as a table's owner names the table, and until the moment at which PostgreSQL reads the
//! statement, whoever owns the schema can have something else behind that name: a view, whose functions would
//! run with the owner's rights. So what the names were read as is compared with the tables that are meant, before
//! the statement is planned or executed. From there on PostgreSQL goes by object ids.

use crate::error::{Error, OrRaise};
use pgrx::prelude::*;
use std::cell::RefCell;

thread_local! {
    /// The only tables that the next statement may name.
    static MEANT: RefCell<Option<Vec<pg_sys::Oid>>> = const { RefCell::new(None) };
}

/// For `_PG_init`: see `prepare_thread_locals` there.
pub(crate) fn prepare() {
    MEANT.set(None);
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

/// While it lives, the first statement that is read fails if it names any other table than those meant.
pub(crate) struct Meant(());

impl Meant {
    pub(crate) fn only(tables: &[pg_sys::Oid]) -> Self {
        MEANT.set(Some(Vec::from(tables)));
        Self(())
    }
}

impl Drop for Meant {
    fn drop(&mut self) {
        // It is still there if the statement could not be read at all.
        MEANT.set(None);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn after_analysis(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    if let Some(meant) = MEANT.take() {
        // SAFETY: PostgreSQL has just made the query.
        unsafe { compare(query, &meant) }.or_raise();
    }
    // SAFETY: as PostgreSQL itself would call it.
    unsafe {
        if let Some(before) = BEFORE {
            before(state, query, jumble);
        }
    }
}

/// # Safety
/// `query` is one.
unsafe fn compare(query: *mut pg_sys::Query, meant: &[pg_sys::Oid]) -> Result<(), Error> {
    // SAFETY: by the caller; a range table is a list of entries, and a subquery is a query.
    unsafe {
        let Some(list) = (*query).rtable.as_ref() else { return Ok(()) };
        for cell in std::slice::from_raw_parts(list.elements, list.length as usize) {
            let entry = &*cell.ptr_value.cast::<pg_sys::RangeTblEntry>();
            match entry.rtekind {
                pg_sys::RTEKind::RTE_RELATION if !meant.contains(&entry.relid) => {
                    return Err(Error::Exchanged);
                }
                pg_sys::RTEKind::RTE_SUBQUERY => compare(entry.subquery, meant)?,
                _ => {}
            }
        }
    }
    Ok(())
}
