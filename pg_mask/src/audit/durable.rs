//! Whether a commit has reached the synchronous standbys. PostgreSQL waits for them after it has committed here, and who calls can
//! have that wait ended: by a cancel, or a timeout of the client's own. It goes on then as if nothing were, with a WARNING.

use crate::error::Error;
use crate::own_names::set_for_the_transaction;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

thread_local! {
    static WAS_ENDED: Cell<bool> = const { Cell::new(false) };
}

/// Waits until this session's last commit is on the standbys that commits wait for, whatever the session asks for; it is an error if that wait is ended as well.
pub(super) fn wait_for_standbys() -> Result<(), Error> {
    set_for_the_transaction(c"synchronous_commit", c"on");
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
    if WAS_ENDED.get() { Err(Error::NotOnStandby) } else { Ok(()) }
}

/// Called by the server whenever it reports something (`error_context_stack` in elog.c).
extern "C-unwind" fn note(_: *mut c_void) {
    WAS_ENDED.set(true);
}
