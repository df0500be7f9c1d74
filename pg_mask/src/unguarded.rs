//! PostgreSQL's functions that are called for each row, or in the midst of an error, and can't raise an
//! error as they are used here: pgrx's own declarations set up a `sigsetjmp` around every call.

use pgrx::pg_sys::{MemoryContext, Oid, Snapshot};
use std::ffi::{c_int, c_void};

unsafe extern "C" {
    /// The SQLSTATE of the error that is being reported, packed (elog.c).
    pub(crate) fn geterrcode() -> c_int;
    /// Whether [`GetActiveSnapshot`] has one to give (snapmgr.c).
    pub(crate) fn ActiveSnapshotSet() -> bool;
    /// The snapshot of the query that is running (snapmgr.c).
    pub(crate) fn GetActiveSnapshot() -> Snapshot;
    /// The role that the session authenticated as (miscinit.c).
    pub(crate) fn GetAuthenticatedUserId() -> Oid;
    /// The role of SET ROLE, or else the session's user (miscinit.c).
    pub(crate) fn GetOuterUserId() -> Oid;
    /// The session's user, which SET SESSION AUTHORIZATION changes (miscinit.c).
    pub(crate) fn GetSessionUserId() -> Oid;
    /// The role that rights are checked for, and PostgreSQL's marks of why it is not who called, `SECURITY_*`
    /// (miscinit.c).
    pub(crate) fn GetUserIdAndSecContext(role: *mut Oid, marks: *mut c_int);
    /// `MemoryContextAlloc` with flags (mcxt.c).
    pub(crate) fn MemoryContextAllocExtended(
        context: MemoryContext,
        size: usize,
        flags: c_int,
    ) -> *mut c_void;
    /// `palloc` with flags (mcxt.c).
    pub(crate) fn palloc_extended(size: usize, flags: c_int) -> *mut c_void;
}
