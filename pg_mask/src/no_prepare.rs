//! A transaction that took messages in, truncated parts of the ledger, or looked at tables which its role has no right to,
//! holds locks that others wait for. It has to end with its session, so it can't be prepared: a prepared one stays until somebody ends it by hand.

use crate::error::{Error, OrRaise};
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::c_void;

thread_local! {
    /// Whether the running transaction is one of those.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Refuses PREPARE TRANSACTION for those from now on. For `_PG_init`.
pub(crate) fn watch() {
    // SAFETY: a plain call; the function has the signature asked for.
    unsafe { pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut()) };
}

/// Refuses PREPARE TRANSACTION for the running transaction.
pub(crate) fn refuse() {
    REFUSED.set(true);
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PRE_PREPARE};
    match event {
        // An error is still possible then, and rolls the transaction back.
        XACT_EVENT_PRE_PREPARE if REFUSED.get() => Err(Error::Prepared).or_raise(),
        XACT_EVENT_COMMIT | XACT_EVENT_ABORT => REFUSED.set(false),
        _ => {}
    }
}
