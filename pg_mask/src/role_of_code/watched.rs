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
    /// Whether code of tables may run by now: in a refresh, what comes before the new content is made are event triggers, and what they do.
    static HAS_BEGUN: Cell<bool> = const { Cell::new(false) };
    /// The statement that fills the dashboard that is being refreshed. It is compared, and never looked into.
    static FILLS: Cell<*const pg_sys::QueryDesc> = const { Cell::new(std::ptr::null()) };
    /// Whether the dashboard that is being refreshed has its new content.
    static IS_FILLED: Cell<bool> = const { Cell::new(false) };
    /// Whether readers go on meanwhile (REFRESH … CONCURRENTLY): then PostgreSQL itself runs commands on the new content.
    static IS_CONCURRENT: Cell<bool> = const { Cell::new(false) };
    /// Whether the next command is one of those. What runs in the midst of any command are event triggers, and what they do.
    static IS_POSTGRESQLS_TURN: Cell<bool> = const { Cell::new(false) };
    /// What such code was refused last.
    static REFUSED: RefCell<Option<Error>> = const { RefCell::new(None) };
}

/// For `_PG_init`: see `prepare_thread_locals` there.
pub(super) fn prepare() {
    REFUSED.set(None);
}

/// What is looked at now.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Watched {
    /// The role that is there for such code; none where it runs as the table's owner. A function of that code may switch to
    /// its own owner's.
    pub(super) role: Option<pg_sys::Oid>,
    /// The table that pg_mask writes into or reads, or the root of its partitions; none while dashboards are refreshed, and
    /// where the table's owner may do to it as the owner likes.
    pub(super) table: Option<pg_sys::Oid>,
}

/// It lasts as long as this lives; then what was looked at before is again.
pub(super) struct Watching {
    before: Option<Watched>,
    was_late: bool,
}

impl Watched {
    /// Whether it is code of the login table, or of the dashboards over it.
    pub(super) fn is_of_logins(self) -> bool {
        let is = |role: pg_sys::Oid| role == own_roles::writer() || own_roles::is_refresher(role);
        self.role.is_some_and(is)
    }

    fn is_a_refresh(self) -> bool {
        self.role.is_some_and(own_roles::is_refresher)
    }

    pub(super) fn begin(self) -> Watching {
        HAS_BEGUN.set(!self.is_a_refresh());
        not_filled();
        REFUSED.set(None);
        Watching { before: NOW.replace(Some(self)), was_late: IS_LATE.replace(false) }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        NOW.set(self.before);
        IS_LATE.set(self.was_late);
        not_filled();
    }
}

/// Looks from now on at code that runs in the midst of a refresh, where that may have had the library loaded, until the client's
/// statement ends. For `_PG_init`.
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
    // Code with another owner's rights may have it loaded first, so whose turn it is does not tell.
    if marks as u32 & pg_sys::SECURITY_RESTRICTED_OPERATION != 0 {
        NOW.set(Some(Watched { role: Some(own_roles::refresher()), table: None }));
        IS_LATE.set(true);
        HAS_BEGUN.set(true);
        not_filled();
        // SAFETY: the callback lives in the context that it waits for, which is there until the statement ends.
        unsafe {
            let context = pg_sys::PortalContext;
            if !context.is_null() {
                let callback: *mut pg_sys::MemoryContextCallback =
                    pg_sys::MemoryContextAllocZero(context, size_of::<pg_sys::MemoryContextCallback>())
                        .cast();
                (*callback).func = Some(statement_ended);
                pg_sys::MemoryContextRegisterResetCallback(context, callback);
            }
        }
    }
}

unsafe extern "C-unwind" fn statement_ended(_argument: *mut c_void) {
    end_late();
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE) {
        end_late();
    }
}

fn end_late() {
    if IS_LATE.take() {
        NOW.set(None);
    }
}

pub(super) fn now() -> Option<Watched> {
    NOW.get()
}

/// Whether it is this role that code is looked at as.
pub(super) fn is_for(role: pg_sys::Oid) -> bool {
    now().is_some_and(|watched| watched.role == Some(role))
}

/// PostgreSQL makes a relation by itself, in the midst of a command: a refresh begins so, with the table for the new content.
pub(super) fn made_by(role: pg_sys::Oid, is_restricted: bool) {
    if is_restricted && is_for(role) {
        HAS_BEGUN.set(true);
    }
}

/// Whether code of tables may run: not before a dashboard's new content is made, nor afterwards.
pub(super) fn may_be_code() -> bool {
    HAS_BEGUN.get() && !IS_FILLED.get()
}

fn not_filled() {
    FILLS.set(std::ptr::null());
    IS_FILLED.set(false);
}

/// A statement starts that fills a view of this role. What code fills meanwhile are views of other roles.
pub(super) fn fills(query: *const pg_sys::QueryDesc, role: pg_sys::Oid) {
    if is_for(role) {
        FILLS.set(query);
    }
}

/// Whether this statement, which is there, is what fills the dashboard.
pub(super) fn is_filled_by(query: *const pg_sys::QueryDesc) -> bool {
    FILLS.get() == query
}

/// The dashboard has its new content.
pub(super) fn filled() {
    not_filled();
    IS_FILLED.set(true);
    IS_POSTGRESQLS_TURN.set(IS_CONCURRENT.get() || is_late());
}

/// pg_mask's own REFRESH begins.
pub(super) fn refreshes(is_concurrent: bool) {
    IS_CONCURRENT.set(is_concurrent);
}

/// A command begins. Gives whose turn it was, for [`command_ended`]. In one that fails nothing is PostgreSQL's own until the one that it is
/// in the midst of has ended.
pub(super) fn command_begins() -> bool {
    IS_POSTGRESQLS_TURN.replace(false)
}

/// A command ended; the last of PostgreSQL's own drops the table of changes.
pub(super) fn command_ended(was_postgresqls_turn: bool, drops: bool) {
    IS_POSTGRESQLS_TURN.set(was_postgresqls_turn && !drops);
}

/// Whether the next command, or statement that writes, is PostgreSQL's own.
pub(super) fn is_postgresqls_turn() -> bool {
    IS_POSTGRESQLS_TURN.get()
}

/// Whether it was begun in the midst, perhaps of a refresh of another role's view.
pub(super) fn is_late() -> bool {
    IS_LATE.get()
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
    if now().is_none() || is_late() {
        return Ok(());
    }
    REFUSED.set(Some(Error::CalledByCode));
    Err(Error::CalledByCode)
}
