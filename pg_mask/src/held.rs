//! The extension is there for as long as a function with its owner's rights runs. That function finds tables and functions by their
//! names: if the extension were dropped in its midst, and others made a schema `pgmask` of their own, it would go on with what
//! they have put there.

use crate::error::{Error, OrRaise};
use crate::{memory, no_prepare};
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::{CStr, c_void};

thread_local! {
    /// What is locked for a procedure.
    static FOR_A_CALL: Cell<Option<pg_sys::LockRelId>> = const { Cell::new(None) };
    /// Whether that is let go of when the session ends.
    static LETS_GO_AT_EXIT: Cell<bool> = const { Cell::new(false) };
}

/// A table of the extension's that nobody but its own functions locks.
const ONE_OF_ITS_TABLES: &CStr = c"database_id";

/// Keeps the extension from being dropped until the transaction ends, on a standby, too: to drop it, all of its tables are locked first.
/// Waits for whoever is dropping it. (A lock on the extension itself would do on no standby, and others can have PostgreSQL take it
/// without any right: ALTER FUNCTION … DEPENDS ON EXTENSION.)
pub(crate) fn hold() {
    lock();
}

/// Keeps it so until the client's statement ends, over the commits of a procedure, which looks each name up anew after them. PostgreSQL
/// lets go of a session's lock with no commit, and with no process that ends: it would be there until the server restarts.
pub(crate) fn hold_for_a_call() {
    const PROCEDURE: &CStr = c"a procedure of pg_mask";
    // A parallel worker is no session: its transaction ends by another event. On a standby, where none of them succeeds, replay can't end
    // a session that commits again and again, and would wait for it (standby.c, `ResolveRecoveryConflictWithLock`).
    // SAFETY: plain calls with a static string.
    unsafe {
        pg_sys::PreventCommandIfParallelMode(PROCEDURE.as_ptr());
        pg_sys::PreventCommandDuringRecovery(PROCEDURE.as_ptr());
    }
    let table = lock();
    if FOR_A_CALL.get().is_none() {
        // SAFETY: plain reads and calls; a session's lock is taken beside the transaction's.
        unsafe {
            if !LETS_GO_AT_EXIT.replace(true) {
                pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0));
            }
            let mut locked = pg_sys::LockRelId { relId: table, dbId: pg_sys::MyDatabaseId };
            pg_sys::LockRelationIdForSession(&raw mut locked, pg_sys::AccessShareLock as i32);
            FOR_A_CALL.set(Some(locked));
        }
    }
}

/// Lets go of what was held for a procedure, once that has ended. For `_PG_init`.
pub(crate) fn watch() {
    // SAFETY: a plain call; the function has the signature asked for.
    unsafe { pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut()) };
}

/// A session may end in the midst of what its client sent at once, after a procedure's commit and in no transaction.
unsafe extern "C-unwind" fn at_exit(_code: std::ffi::c_int, _argument: pg_sys::Datum) {
    // SAFETY: a plain read. A transaction is rolled back after this, which lets go of it as well.
    if !unsafe { pg_sys::IsTransactionState() } {
        let_go();
    }
}

/// Lets go of what is held for a procedure, if anything is.
fn let_go() {
    if let Some(mut locked) = FOR_A_CALL.take() {
        // SAFETY: a plain call for a lock that the session has.
        unsafe { pg_sys::UnlockRelationIdForSession(&raw mut locked, pg_sys::AccessShareLock as i32) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PRE_PREPARE};
    match event {
        // PostgreSQL lets go of a session's locks as well then (`ProcReleaseLocks` in proc.c).
        XACT_EVENT_ABORT => FOR_A_CALL.set(None),
        // While a procedure commits, its portal is at work.
        // SAFETY: a plain read.
        XACT_EVENT_COMMIT if unsafe { pg_sys::ActivePortal.is_null() } => let_go(),
        // No procedure prepares a transaction. Afterwards PostgreSQL may have forgotten the lock, and keeps it (`PostPrepare_Locks` in lock.c).
        XACT_EVENT_PRE_PREPARE => let_go(),
        _ => {}
    }
}

fn lock() -> pg_sys::Oid {
    no_prepare::refuse();
    // SAFETY: a look-up by names, which it only reads, and one of what it has found.
    let (table, is_ours) = unsafe {
        let name =
            pg_sys::makeRangeVar(c"pgmask".as_ptr().cast_mut(), ONE_OF_ITS_TABLES.as_ptr().cast_mut(), -1);
        let table = pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::AccessShareLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        );
        let extension = pg_sys::get_extension_oid(c"pg_mask".as_ptr(), true);
        let is_ours = extension != pg_sys::InvalidOid
            && extension == pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, table);
        (table, is_ours)
    };
    if !is_ours {
        Err::<(), _>(Error::Gone).or_raise();
    }
    table
}

/// The same for one that writes: on a standby, or in a transaction that was told to only read, the error that says so.
pub(crate) fn hold_to_write(function: &'static CStr) {
    memory::for_a_call().or_raise(); // before any look-up, whose error would need memory
    // SAFETY: a plain call with a static string.
    unsafe { pg_sys::PreventCommandIfReadOnly(function.as_ptr()) };
    hold();
}
