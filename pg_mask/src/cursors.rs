//! The session's cursors, out of reach of code of others while that runs. A function may fetch from and close any
//! cursor of its session whose name it knows; and one that it leaves open would be run on by whoever commits next, with
//! that one's rights: a cursor that PL/Perl or a loop has in use is held over the commit of a procedure. Nor does `WHERE CURRENT OF`
//! find the row that one is at.

use crate::error::Error;
use crate::plan;
use crate::text::OwnedText;
use pg_sys::{PortalStatus, PortalStrategy};
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

/// The cursors of the session; pg_mask has none of its own open.
const CURSORS: &str = "SELECT name FROM pg_catalog.pg_cursors";

/// While it lives, the cursors that were there are not in `pg_cursors`, with their statements; nor can they be fetched
/// from or closed, as if they were running.
pub(crate) struct OutOfReach {
    cursors: Vec<Cursor>,
}

/// A cursor, and the state that it was in.
struct Cursor {
    name: CString,
    status: PortalStatus::Type,
    strategy: PortalStrategy::Type,
}

impl OutOfReach {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self { cursors: shown()?.into_iter().filter_map(Cursor::hidden).collect() })
    }

    /// Refuses code that has left a cursor open.
    pub(crate) fn none_was_left(&self) -> Result<(), Error> {
        if shown()?.is_empty() { Ok(()) } else { Err(Error::CursorLeft) }
    }
}

fn shown() -> Result<Vec<OwnedText>, Error> {
    plan::rows(CURSORS, Vec::new, |row| row.get(1))
}

impl Drop for OutOfReach {
    fn drop(&mut self) {
        for cursor in &self.cursors {
            set(&cursor.name, true, cursor.status, cursor.strategy);
        }
    }
}

impl Cursor {
    fn hidden(name: OwnedText) -> Option<Self> {
        let name = CString::new(name.0).ok()?;
        let (status, strategy) =
            set(&name, false, PortalStatus::PORTAL_ACTIVE, PortalStrategy::PORTAL_MULTI_QUERY)?;
        Some(Self { name, status, strategy })
    }
}

/// Sets whether `pg_cursors` shows a cursor, its state, and what it runs; returns the two that were so before.
fn set(
    name: &CStr,
    visible: bool,
    status: PortalStatus::Type,
    strategy: PortalStrategy::Type,
) -> Option<(PortalStatus::Type, PortalStrategy::Type)> {
    // SAFETY: a look-up; the server hides portals of its own in the same way, and what it does with one that is
    // active it does not do in the midst of a statement (portal.h). What one runs is asked as it is run, fetched from or named in a
    // WHERE CURRENT OF (pquery.c, execCurrent.c).
    let portal = unsafe { pg_sys::GetPortalByName(name.as_ptr()).as_mut()? };
    portal.visible = visible;
    let status = std::mem::replace(&mut portal.status, status);
    Some((status, std::mem::replace(&mut portal.strategy, strategy)))
}
