//! What is shown only after it was written down who asked, and why.
//!
//! A procedure takes two steps. The first writes the audit row and the log line and leaves a ticket in this
//! process's memory; then the procedure commits; the second takes the ticket and shows the value. So there is
//! no value without a committed row, whatever is rolled back and whatever the server's log leaves out.
//!
//! The row has to name who really asked. Code of others may run in a session without its user wanting it: in
//! a trigger, a view, an index expression, a SECURITY DEFINER function. Therefore both steps see their real
//! caller (the procedures are SECURITY INVOKER), and refuse unless the client's own statement is the CALL.

use crate::error::Error;
use crate::text::{self, OwnedText, Text};
use crate::{memory, plan, run_as};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::CStr;

/// What a procedure shows or does: an entry of `pgmask.audit.action`, and its own name.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Action {
    UnsealQuarantine,
}

impl Action {
    fn name(self) -> &'static CStr {
        match self {
            Self::UnsealQuarantine => c"unseal_quarantine",
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::UnsealQuarantine => "unseal_quarantine",
        }
    }

    /// What the log says that the role does.
    fn logged(self, id: i64) -> String {
        match self {
            Self::UnsealQuarantine => format!("opens message {id} of the quarantine"),
        }
    }
}

/// For the second step, once.
#[derive(Clone, Copy)]
struct Ticket {
    action: Action,
    id: i64,
    audit_id: i64,
    /// The transaction that wrote the row.
    transaction: pg_sys::TransactionId,
}

thread_local! {
    static TICKET: Cell<Option<Ticket>> = const { Cell::new(None) };
}

const MOST_REASON: usize = 4_000;

const WRITE: &str = "INSERT INTO pgmask.audit (login_role, acting_role, action, quarantine_id, reason)
    VALUES (session_user, $1, $2, $3, $4)
    RETURNING id, login_role::pg_catalog.text";

const IS_WRITTEN: &str = "SELECT EXISTS (SELECT FROM pgmask.audit WHERE id = $1 AND quarantine_id = $2)";

/// The first step: writes down that the caller does `action` to `id`, and why. `find` sees whether there is
/// such a thing.
pub(crate) fn write(
    action: Action,
    id: i64,
    reason: Option<Text<'_>>,
    find: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    TICKET.set(None);
    is_called_directly(action)?;
    let reason = reason.ok_or(Error::NoReason)?;
    if reason.as_server_bytes().len() > MOST_REASON {
        return Err(Error::LongReason { most: MOST_REASON });
    }
    let readable = reason.to_utf8_if_it_can();
    let readable = String::from_utf8_lossy(&readable);
    if !readable.chars().any(is_seen) {
        return Err(Error::NoReason);
    }
    // SAFETY: a look-up; a role that is in use exists.
    let acting_role = unsafe { CStr::from_ptr(pg_sys::GetUserNameFromId(pg_sys::GetUserId(), false)) };
    let acting_role = memory::copy(acting_role.to_bytes())?;
    let stored_reason = OwnedText(memory::copy(reason.as_server_bytes())?);
    let arguments = || {
        let acting_role = OwnedText(acting_role.clone());
        vec![acting_role.into(), action.as_str().into(), id.into(), stored_reason.into()]
    };
    let read = |row: &plan::Row<'_>| Ok((row.get::<i64>(1)?, row.get::<OwnedText>(2)?.0));
    let (audit_id, login_role) = as_owner(|| find().and_then(|()| plan::one_row(WRITE, arguments, read)))?;
    commit_durably();

    // One line, whatever the reason holds.
    let readable: String = match text::server_is_utf8_or_unknown() {
        true => readable.escape_debug().collect(),
        false => readable.escape_default().collect(),
    };
    let line = format!(
        "pg_mask: role \"{}\" (logged in as \"{}\") {}; reason: {readable}",
        String::from_utf8_lossy(&acting_role).escape_debug(),
        String::from_utf8_lossy(&login_role).escape_debug(),
        action.logged(id),
    );
    ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, line, "").report(PgLogLevel::LOG);
    // SAFETY: a look-up; the transaction has written a row.
    let transaction = unsafe { pg_sys::GetTopTransactionId() };
    TICKET.set(Some(Ticket { action, id, audit_id, transaction }));
    Ok(())
}

/// The second step: does `work` only if the row of the first is committed.
pub(crate) fn written<R>(
    action: Action,
    id: i64,
    work: impl FnOnce() -> Result<R, Error>,
) -> Result<R, Error> {
    let ticket = TICKET.take().filter(|ticket| ticket.action == action && ticket.id == id);
    is_called_directly(action)?;
    let ticket = ticket.ok_or(Error::NotDirectly(action.as_str()))?;
    // SAFETY: a look-up.
    let is_later = unsafe { pg_sys::GetTopTransactionIdIfAny() } != ticket.transaction;
    let row = || vec![ticket.audit_id.into(), id.into()];
    as_owner(|| {
        // A row that another transaction sees is committed.
        let is_there: bool = plan::one_row(IS_WRITTEN, row, |row| row.get(1))?;
        if is_later && is_there { work() } else { Err(Error::NotDirectly(action.as_str())) }
    })
}

/// Refuses to run but by the procedure, where the client's own statement is its CALL and nothing else is.
fn is_called_directly(action: Action) -> Result<(), Error> {
    // SAFETY: look-ups of the backend's own state.
    let is_someone_elses_code = unsafe {
        pg_sys::InLocalUserIdChange()
            || pg_sys::InSecurityRestrictedOperation()
            || pg_sys::IsTransactionBlock()
    };
    if !is_someone_elses_code && called_procedure().is_some_and(|procedure| is_ours(procedure, action.name()))
    {
        Ok(())
    } else {
        Err(Error::NotDirectly(action.as_str()))
    }
}

/// The procedure that the client's own statement calls.
fn called_procedure() -> Option<pg_sys::Oid> {
    // SAFETY: the portal of the client's statement and its nodes live as long as the statement runs; each
    // node is of the type that its tag says.
    unsafe {
        let statements = pg_sys::ActivePortal.as_ref()?.stmts.as_ref()?;
        if statements.length != 1 {
            return None;
        }
        let statement: *const pg_sys::PlannedStmt = (*statements.elements).ptr_value.cast();
        let utility = (*statement).utilityStmt.as_ref()?;
        if utility.type_ != pg_sys::NodeTag::T_CallStmt {
            return None;
        }
        let call: *const pg_sys::CallStmt = std::ptr::from_ref(utility).cast();
        Some((*call).funcexpr.as_ref()?.funcid)
    }
}

/// Whether a procedure is the one of that name in the schema `pgmask`.
fn is_ours(procedure: pg_sys::Oid, name: &CStr) -> bool {
    // SAFETY: catalog look-ups; the name is a copy.
    unsafe {
        let found = pg_sys::get_func_name(procedure);
        !found.is_null()
            && CStr::from_ptr(found) == name
            && pg_sys::get_func_namespace(procedure) == pg_sys::get_namespace_oid(c"pgmask".as_ptr(), true)
    }
}

/// Does `work` as who owns the schema `pgmask` and all that is in it.
fn as_owner<R>(work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    const OWNER: &str = "SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'pgmask'";
    let owner = plan::one_row(OWNER, Vec::new, |row| row.get(1))?;
    run_as::bound(owner, work)
}

/// Has this transaction's commit wait until it is on disk, also where the session does not ask for that.
fn commit_durably() {
    // SAFETY: plain calls. The setting holds until the end of the transaction.
    unsafe {
        if pg_sys::synchronous_commit < pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_REMOTE_FLUSH as i32 {
            pg_sys::set_config_option(
                c"synchronous_commit".as_ptr(),
                c"on".as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_LOCAL,
                true,
                0,
                false,
            );
        }
        pg_sys::ForceSyncCommit();
    }
}

/// A letter or a digit; but for the letters that are there to show nothing.
fn is_seen(character: char) -> bool {
    const FILLERS: [char; 4] = ['\u{115F}', '\u{1160}', '\u{3164}', '\u{FFA0}'];
    character.is_alphanumeric() && !FILLERS.contains(&character)
}
