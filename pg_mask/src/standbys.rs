//! Whether a commit has reached the synchronous standbys. PostgreSQL waits for them after it has committed here, and who calls can
//! have that wait ended: by a cancel, or a timeout of the client's own. It goes on then as if nothing were, with a WARNING.

use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

thread_local! {
    static WAS_ENDED: Cell<bool> = const { Cell::new(false) };
    /// Whether the running transaction's commit waits in any case.
    static WAITS: Cell<bool> = const { Cell::new(false) };
}

/// Waits until this session's last commit is on the standbys that it waits for (`synchronous_commit`), and says whether it came
/// to that. It does not where this wait is ended as well.
pub(crate) fn wait() -> bool {
    WAS_ENDED.set(false);
    // SAFETY: reads and writes of the backend's own state. The wait raises no error, wants interrupts held as at a commit
    // (syncrep.c), and reports nothing but that it was ended, which is shown to the client so that it is reported at all.
    unsafe {
        let level = ptr::replace(&raw mut pg_sys::client_min_messages, PgLogLevel::WARNING as i32);
        let contexts = pg_sys::error_context_stack;
        let mut notes =
            pg_sys::ErrorContextCallback { previous: contexts, callback: Some(note), arg: ptr::null_mut() };
        pg_sys::error_context_stack = &raw mut notes;
        pg_sys::InterruptHoldoffCount += 1;
        pg_sys::SyncRepWaitForLSN(pg_sys::XactLastCommitEnd, true);
        pg_sys::InterruptHoldoffCount -= 1;
        pg_sys::error_context_stack = contexts;
        pg_sys::client_min_messages = level;
    }
    !WAS_ENDED.get()
}

/// Has this transaction's commit wait for them in any case. For one that took messages in, as who is told of it deletes them from
/// the queue; and for one that erased a value.
pub(crate) fn wait_at_commit() {
    WAITS.set(true);
}

/// Waits at commits from now on. For `_PG_init`.
pub(crate) fn watch() {
    // SAFETY: a plain call; the function has the signature asked for.
    unsafe { pg_sys::RegisterXactCallback(Some(transaction_event), ptr::null_mut()) };
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT};
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_ABORT) && WAITS.take() && event == XACT_EVENT_COMMIT {
        // Whoever ends the wait and how often, until this process itself is to end.
        // SAFETY: a read of the backend's own state, which a signal writes.
        while !wait() && unsafe { (&raw const pg_sys::ProcDiePending).read_volatile() } == 0 {}
    }
}

/// Called by the server whenever it reports something (`error_context_stack` in elog.c).
extern "C-unwind" fn note(_: *mut c_void) {
    WAS_ENDED.set(true);
}
