//! While code of a table runs as the role that is there for it, what it does is looked at.

use crate::error::{Error, OrRaise};
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};

thread_local! {
    static NOW: Cell<Option<Watched>> = const { Cell::new(None) };
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
        REFUSED.set(None);
        Watching(())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        NOW.set(None);
    }
}

pub(super) fn now() -> Option<Watched> {
    NOW.get()
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
    if now().is_none() {
        return Ok(());
    }
    REFUSED.set(Some(Error::CalledByCode));
    Err(Error::CalledByCode)
}
