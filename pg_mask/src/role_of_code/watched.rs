//! While code of a table runs as the role that is there for it, what it does is looked at.

use crate::error::{Error, OrRaise};
use crate::{own_roles, unguarded};
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;

thread_local! {
    /// Whether it was begun in the midst.
    static IS_LATE: Cell<bool> = const { Cell::new(false) };
    static NOW: Cell<Option<Watched>> = const { Cell::new(None) };
    /// Whether the dashboard that is being refreshed has its new content.
    static IS_FILLED: Cell<bool> = const { Cell::new(false) };
    /// What such code was refused last.
    static REFUSED: RefCell<Option<Error>> = const { RefCell::new(None) };
}

/// For `_PG_init`: see `prepare_thread_locals` there.
pub(crate) fn prepare() {
    REFUSED.set(None);
}

/// What is looked at now.
#[derive(Clone, Copy)]
pub(super) struct Watched {
    /// The role that is there for such code; none where it runs as the table's owner. A function of that code may switch to
    /// its own owner's.
    pub(super) role: Option<pg_sys::Oid>,
    /// The table that pg_mask writes into or reads, or the root of its partitions; none while dashboards are refreshed, and
    /// where the table's owner may do to it as the owner likes.
    pub(super) table: Option<pg_sys::Oid>,
}

/// It lasts as long as this lives.
pub(super) struct Watching(());

impl Watched {
    pub(super) fn begin(self) -> Watching {
        NOW.set(Some(self));
        IS_LATE.set(false);
        IS_FILLED.set(false);
        REFUSED.set(None);
        Watching(())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        NOW.set(None);
    }
}

/// Looks from now on at code that runs in the midst of a refresh, where that has had the library loaded, until the transaction
/// ends. For `_PG_init`.
pub(super) fn begin_late() {
    let (mut role, mut marks) = (pg_sys::InvalidOid, 0);
    // SAFETY: plain reads, and a plain call with a function of the signature asked for.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut());
        if !pg_sys::IsTransactionState() {
            return;
        }
        unguarded::GetUserIdAndSecContext(&raw mut role, &raw mut marks);
    }
    if marks != 0 && own_roles::is_refresher(role) {
        NOW.set(Some(Watched { role: Some(role), table: None }));
        IS_LATE.set(true);
        IS_FILLED.set(false);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE) && IS_LATE.take() {
        NOW.set(None);
    }
}

pub(super) fn now() -> Option<Watched> {
    NOW.get()
}

/// A view of this role has its new content. What code fills meanwhile are views of other roles.
pub(super) fn filled_by(role: pg_sys::Oid) {
    if now().is_some_and(|watched| watched.role == Some(role)) {
        IS_FILLED.set(true);
    }
}

/// Whether no code of a table runs any more, but what PostgreSQL does itself with the new content.
pub(super) fn is_filled() -> bool {
    IS_FILLED.get()
}

/// Raises an error in the midst of such code, and keeps it: what comes of it is known by its SQLSTATE alone.
pub(super) fn refuse(error: impl Fn() -> Error) {
    REFUSED.set(Some(error()));
    Err::<(), _>(error()).or_raise();
}

/// What code was refused that ran last and that has failed with this SQLSTATE. It says nothing of a row.
pub(super) fn refused(sqlstate: &[u8; 5]) -> Option<Error> {
    REFUSED.take().filter(|_| sqlstate == b"42501")
}

/// Refuses code of a table that has pg_mask run such code again: messages would be taken twice, and what is to end the
/// statement (a cancel, a timeout) would be taken for an error of its own.
pub(super) fn refuse_code() -> Result<(), Error> {
    if now().is_none() || IS_LATE.get() {
        return Ok(());
    }
    REFUSED.set(Some(Error::CalledByCode));
    Err(Error::CalledByCode)
}
