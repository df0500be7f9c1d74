//! What is shown only after it was written down who asked, and why.
//!
//! A procedure takes two steps. The first writes the audit row and the log line and leaves a ticket in this
//! process's memory; then the procedure commits; the second takes the ticket and shows the value. So there is
//! no value without a committed row, whatever is rolled back and whatever the server's log leaves out.
//!
//! The row has to name who really asked. Code of others may run in a session without its user wanting it: in
//! a trigger, a view, an index expression, a SECURITY DEFINER function. Therefore both steps see their real
//! caller (the procedures are SECURITY INVOKER), and refuse unless the client's own statement is the CALL.
//!
//! [`chain`] is the rows' order, in which none can be changed or taken out unseen, and [`verify`] looks
//! whether that was done.

mod chain;
mod verify;

use crate::client_statement::Hidden;
use crate::clock;
use crate::error::{Error, OrRaise};
use crate::held;
use crate::own_names::set_for_the_transaction;
use crate::text::{self, OwnedText, Text};
use crate::{membership, memory, plan, run_as, standbys};
pub(crate) use chain::prove_end_anew;
use chain::{Link, Record};
use pg_mask_core::token::Token;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::CStr;

const UNSEAL_QUARANTINE: &str = "unseal_quarantine";
const RECOVER_PII: &str = "recover_pii";
const FORGET: &str = "forget";

/// What a procedure shows or does: an entry of `pgmask.audit.action`, and its own name.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Action {
    UnsealQuarantine {
        id: i64,
    },
    /// Of generation 1 or later, as the next is: a hash without a key gives away an address.
    RecoverPii {
        token: Token,
    },
    Forget {
        token: Token,
    },
}

impl Action {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::UnsealQuarantine { .. } => UNSEAL_QUARANTINE,
            Self::RecoverPii { .. } => RECOVER_PII,
            Self::Forget { .. } => FORGET,
        }
    }

    fn quarantine_id(self) -> Option<i64> {
        match self {
            Self::UnsealQuarantine { id } => Some(id),
            Self::RecoverPii { .. } | Self::Forget { .. } => None,
        }
    }

    fn token(self) -> Option<Token> {
        match self {
            Self::UnsealQuarantine { .. } => None,
            Self::RecoverPii { token } | Self::Forget { token } => Some(token),
        }
    }

    /// What is done for a reason only.
    fn deed(self) -> &'static str {
        match self {
            Self::UnsealQuarantine { .. } => "a quarantined message is opened",
            Self::RecoverPii { .. } => "a value is recovered",
            Self::Forget { .. } => "a value is forgotten",
        }
    }

    /// What the log says that the role does.
    fn logged(self) -> String {
        match self {
            Self::UnsealQuarantine { id } => format!("opens message {id} of the quarantine"),
            Self::RecoverPii { token } => format!("asks for the value of token {token}"),
            Self::Forget { token } => format!("has the value of token {token} forgotten"),
        }
    }
}

/// For the second step, once.
struct Ticket {
    action: Action,
    link: Link,
    /// For the server's log.
    line: String,
}

thread_local! {
    static TICKET: RefCell<Option<Ticket>> = const { RefCell::new(None) };
}

/// For `_PG_init`: see `prepare_thread_locals` there.
pub(crate) fn prepare() {
    TICKET.set(None);
}

/// Before the first step: whether the procedure may commit what its caller has begun. Code that runs in that commit finds no
/// ticket of a call before, which may have been cut off.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn audit_asked(procedure: Text<'_>) {
    TICKET.set(None);
    let is_given = |name: &&str| name.as_bytes() == procedure.as_server_bytes();
    let name = [UNSEAL_QUARANTINE, RECOVER_PII].into_iter().find(is_given).unwrap_or(FORGET);
    is_called_directly(name).or_raise();
    held::hold_for_a_call();
}

const MOST_REASON: usize = 4_000;

/// The first step, before anything is done: what is going to be written down.
pub(crate) struct Entry {
    action: Action,
    record: Record,
    /// For the server's log.
    line: String,
}

impl Entry {
    /// Refuses to be but for the procedure's own CALL, and for a reason.
    pub(crate) fn new(action: Action, reason: Option<Text<'_>>) -> Result<Self, Error> {
        // Code of others that runs as the procedure commits (a deferred constraint's) looks like the procedure itself, whose
        // transaction has written nothing yet.
        // SAFETY: a look-up.
        let has_written = unsafe { pg_sys::GetTopTransactionIdIfAny() } != pg_sys::InvalidTransactionId;
        if has_written {
            return Err(Error::NotDirectly(action.as_str()));
        }
        TICKET.set(None);
        memory::for_a_call()?;
        is_called_directly(action.as_str())?;
        let reason = reason.ok_or(Error::NoReason(action.deed()))?;
        if reason.as_server_bytes().len() > MOST_REASON {
            return Err(Error::LongReason { most: MOST_REASON });
        }
        let readable = reason.to_utf8_if_it_can();
        let readable = String::from_utf8_lossy(&readable);
        if !readable.chars().any(is_seen) {
            return Err(Error::NoReason(action.deed()));
        }
        // SAFETY: look-ups.
        let [login_role, acting_role] =
            unsafe { [pg_sys::GetSessionUserId(), pg_sys::GetUserId()] }.map(name_of);
        let (login_role, acting_role) = (login_role?, acting_role?);
        let shown = |name: &OwnedText| String::from_utf8_lossy(&name.0).escape_debug().to_string();
        // One line, whatever the reason holds.
        let readable: String = match text::server_is_utf8_or_unknown() {
            true => readable.escape_debug().collect(),
            false => readable.escape_default().collect(),
        };
        let line = format!(
            "pg_mask: role \"{}\" (logged in as \"{}\") {}; reason: {readable}",
            shown(&acting_role),
            shown(&login_role),
            action.logged()
        );
        let record = Record {
            done_at: clock::exactly(),
            login_role,
            acting_role,
            action: OwnedText(memory::copy(action.as_str().as_bytes())?),
            quarantine_id: action.quarantine_id(),
            token: action.token().map(|token| OwnedText(token.to_string().into_bytes())),
            reason: OwnedText(memory::copy(reason.as_server_bytes())?),
        };
        Ok(Self { action, record, line })
    }

    /// Writes the row, if `look` finds, as the owner of pg_mask's tables, that there is reason to.
    pub(crate) fn write(self, look: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let Self { action, record, mut line } = self;
        let link = as_owner(|| look().and_then(|()| chain::append(record)))?;
        commit_durably();
        // What anchors the chain comes last, where no reason can forge it.
        line.push_str(&format!("; audit {}, MAC {}", link.id, hex::encode(link.mac)));
        TICKET.set(Some(Ticket { action, link, line }));
        Ok(())
    }
}

/// The second step: if the row of the first is committed, writes the log line and does `work`.
pub(crate) fn written<R>(action: Action, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    let ticket = TICKET.take().filter(|ticket| ticket.action == action);
    is_called_directly(action.as_str())?;
    let ticket = ticket.ok_or(Error::NotDirectly(action.as_str()))?;
    // The transaction after the one that wrote the row, which has written nothing yet.
    // SAFETY: a look-up.
    let is_later = unsafe { pg_sys::GetTopTransactionIdIfAny() } == pg_sys::InvalidTransactionId;
    as_owner(|| {
        // A row that another transaction sees is committed.
        if !(is_later && chain::holds(ticket.link)?) {
            return Err(Error::NotDirectly(action.as_str()));
        }
        let hidden = Hidden::new(); // the value may stand in it: CALL pgmask.forget(mask_pii('…'), …)
        ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, ticket.line, "")
            .report(PgLogLevel::LOG_SERVER_ONLY); // never to the client: it names the token of a hash that was given
        drop(hidden);
        set_for_the_transaction(c"synchronous_commit", c"on");
        if !standbys::wait() {
            return Err(Error::NotOnStandby);
        }
        work()
    })
}

/// The name of a role that is in use, in the database's encoding. It may have been made in a database of another: what is no
/// text here is written in its bytes, as a dump could not be restored otherwise.
fn name_of(role: pg_sys::Oid) -> Result<OwnedText, Error> {
    // SAFETY: a look-up; a role that is in use exists, and its name is copied.
    let name = unsafe { CStr::from_ptr(pg_sys::GetUserNameFromId(role, false)) };
    // SAFETY: a check of those bytes.
    let is_text = unsafe { pg_sys::pg_verifymbstr(name.as_ptr(), name.count_bytes() as i32, true) };
    let bytes = name.to_bytes();
    let escaped = || bytes.escape_ascii().collect::<Vec<u8>>();
    Ok(OwnedText(if is_text { memory::copy(bytes)? } else { escaped() }))
}

/// Refuses to run but by the procedure, where the client's own statement is its CALL and nothing else is.
fn is_called_directly(name: &'static str) -> Result<(), Error> {
    // SAFETY: look-ups of the backend's own state. What may commit is a procedure that the client called; a
    // function in the arguments of its CALL may not.
    let is_someone_elses_code = unsafe {
        pg_sys::InLocalUserIdChange()
            || pg_sys::InSecurityRestrictedOperation()
            || pg_sys::IsTransactionBlock()
            || !pg_sys::SPI_inside_nonatomic_context()
    };
    if is_someone_elses_code || !called_procedure().is_some_and(|procedure| is_ours(procedure, name)) {
        return Err(Error::NotDirectly(name));
    }
    // PostgreSQL looks at that when the session says SET ROLE, and never again.
    // SAFETY: reads of the backend's own state.
    let (session, acting) = unsafe { (pg_sys::GetSessionUserId(), pg_sys::GetUserId()) };
    match membership::may_act_as(session, acting) {
        true => Ok(()),
        false => Err(Error::MayNotActAs(String::from_utf8_lossy(&name_of(acting)?.0).into_owned())),
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
fn is_ours(procedure: pg_sys::Oid, name: &str) -> bool {
    // SAFETY: catalog look-ups; the name is a copy.
    unsafe {
        let found = pg_sys::get_func_name(procedure);
        !found.is_null()
            && CStr::from_ptr(found).to_bytes() == name.as_bytes()
            && pg_sys::get_func_namespace(procedure) == pg_sys::get_namespace_oid(c"pgmask".as_ptr(), true)
    }
}

/// Does `work` as who owns the schema `pgmask` and all that is in it.
fn as_owner<R>(work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    held::hold();
    const OWNER: &str = "SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'pgmask'";
    let owner = plan::one_row(OWNER, Vec::new, |row| row.get(1))?;
    run_as::bound(owner, work)
}

/// Has this transaction's commit wait until it is on disk, here and on the standbys that commits wait for, whatever the
/// session asks for; and for nothing else, such as a client that does not read what is said meanwhile.
pub(crate) fn commit_durably() {
    set_for_the_transaction(c"synchronous_commit", c"on");
    set_for_the_transaction(c"client_min_messages", c"error");
    // SAFETY: a plain call.
    unsafe { pg_sys::ForceSyncCommit() };
}

/// A letter or a digit; but for the letters that are there to show nothing.
fn is_seen(character: char) -> bool {
    const FILLERS: [char; 4] = ['\u{115F}', '\u{1160}', '\u{3164}', '\u{FFA0}'];
    character.is_alphanumeric() && !FILLERS.contains(&character)
}
