//! While code of a table runs as the role that is there for it, what it does is looked at.

use crate::error::Error;
use pgrx::prelude::*;
use std::cell::Cell;

thread_local! {
    /// The role that code runs as now.
    static ROLE: Cell<Option<pg_sys::Oid>> = const { Cell::new(None) };
}

/// While it lives, code of a table runs as a role.
pub(super) struct Watched(());

impl Watched {
    pub(super) fn begin(role: pg_sys::Oid) -> Self {
        ROLE.set(Some(role));
        Self(())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        ROLE.set(None);
    }
}

/// The role that code of a table runs as now, if it does.
pub(super) fn role_of_code() -> Option<pg_sys::Oid> {
    ROLE.get()
}

/// Refuses code of a table that has pg_mask run such code again: messages would be taken twice, and what is to end the
/// statement (a cancel, a timeout) would be taken for an error of its own.
pub(super) fn refuse_code() -> Result<(), Error> {
    if role_of_code().is_some() { Err(Error::CalledByCode) } else { Ok(()) }
}
