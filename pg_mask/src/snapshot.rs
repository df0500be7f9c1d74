//! Snapshots: telling one from the next at next to no cost, and reading with a certain one.
//!
//! What a function learnt from a table holds as long as the snapshot sees the same rows. A snapshot's
//! address says nothing about that, as memory is used again, so [`Identity`] compares what a snapshot
//! consists of. Two snapshots of one backend with equal identities see the same rows of a table:
//!
//! - Other transactions: `snapXactCompletionCount` is how many had ended when the snapshot was taken.
//!   Where it is equal, so is the set of transactions that are seen; PostgreSQL itself takes over the
//!   contents of an older snapshot on this ground (procarray.c, `GetSnapshotDataReuse`), on standbys too.
//!   Only snapshots that came from another process have none (0): a parallel worker's and an imported
//!   one. A transaction has one of those at most, and copies that differ in nothing but the command.
//! - The own transaction: `curcid` says how many of its commands are seen, and never goes back. What can
//!   take seen rows away again is the end of a subtransaction by a rollback, or of the transaction
//!   itself, and [`EPOCH`] counts both.
//!
//! `xmin` and `xmax` follow from this; they are compared because it costs nothing.

use crate::unguarded;
use pgrx::prelude::*;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts this backend's transactions that ended and its subtransactions that were rolled back.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// What a snapshot sees, as far as snapshots of one backend can differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    epoch: u64,
    ended: u64,
    command: pg_sys::CommandId,
    xmin: pg_sys::TransactionId,
    xmax: pg_sys::TransactionId,
}

/// Counts from now on. For `_PG_init`.
pub(crate) fn watch() {
    // SAFETY: plain calls; both functions have the signatures asked for and can't raise an error.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_event), std::ptr::null_mut());
    }
}

unsafe extern "C-unwind" fn transaction_event(_: pg_sys::XactEvent::Type, _: *mut c_void) {
    EPOCH.fetch_add(1, Relaxed);
}

unsafe extern "C-unwind" fn subtransaction_event(
    event: pg_sys::SubXactEvent::Type,
    _: pg_sys::SubTransactionId,
    _: pg_sys::SubTransactionId,
    _: *mut c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        EPOCH.fetch_add(1, Relaxed);
    }
}

/// The identity of the snapshot that the running query reads with; `None` if there is none, or none
/// that stays as it is.
#[inline]
pub(crate) fn active() -> Option<Identity> {
    // SAFETY: the functions return static variables and can't raise an error; an active snapshot is
    // complete and stays where it is during the call.
    let snapshot = unsafe { unguarded::ActiveSnapshotSet().then(|| &*unguarded::GetActiveSnapshot())? };
    (snapshot.snapshot_type == pg_sys::SnapshotType::SNAPSHOT_MVCC).then(|| Identity {
        epoch: EPOCH.load(Relaxed),
        ended: snapshot.snapXactCompletionCount,
        command: snapshot.curcid,
        xmin: snapshot.xmin,
        xmax: snapshot.xmax,
    })
}

/// Which rows to read.
#[derive(Clone, Copy)]
pub(crate) enum Snapshot {
    /// Those that the running query sees.
    Statement,
    /// Those that are committed now, whatever the transaction's isolation.
    Newest,
}

impl Snapshot {
    /// Gives `read` the snapshot, which is registered for so long.
    pub(crate) fn with<R>(self, read: impl FnOnce(pg_sys::Snapshot) -> R) -> R {
        // SAFETY: plain calls; after an error the resource owner gives the snapshot back.
        unsafe {
            let snapshot = match self {
                Self::Statement if unguarded::ActiveSnapshotSet() => unguarded::GetActiveSnapshot(),
                _ => pg_sys::GetLatestSnapshot(),
            };
            let snapshot = pg_sys::RegisterSnapshot(snapshot);
            let done = read(snapshot);
            pg_sys::UnregisterSnapshot(snapshot);
            done
        }
    }
}
