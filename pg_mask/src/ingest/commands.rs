//! Which commands code of the login table may run as the role that rows are inserted as. That role owns nothing,
//! but PostgreSQL lets every role change itself (its password, its settings) and the session that it is in
//! (prepared statements, channels that it listens to), also in a security-restricted operation. So what is
//! allowed here is what reads, locks, or is over with the statement.

use crate::error::{Error, OrRaise};
use pg_sys::NodeTag;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::{CStr, c_char};

thread_local! {
    /// The role that rows are being inserted as.
    static WRITER: Cell<Option<pg_sys::Oid>> = const { Cell::new(None) };
}

/// The hook of a library that was loaded before.
static mut BEFORE: pg_sys::ProcessUtility_hook_type = None;

/// Looks at each command from now on. For `_PG_init`.
pub(crate) fn watch() {
    // SAFETY: libraries are loaded one after the other; the function has the signature asked for.
    unsafe {
        BEFORE = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(command);
    }
}

/// While it lives, commands that `writer` runs are looked at.
pub(super) struct Watched(Option<pg_sys::Oid>);

impl Watched {
    pub(super) fn new(writer: pg_sys::Oid) -> Self {
        Self(WRITER.replace(Some(writer)))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        WRITER.set(self.0);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn command(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    is_read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: PostgreSQL hands over a statement that has a command; the rest is as it would call it itself.
    unsafe {
        let command = (*statement).utilityStmt;
        if WRITER.get() == Some(pg_sys::GetUserId()) && !is_allowed((*command).type_) {
            let name = pg_sys::GetCommandTagName(pg_sys::CreateCommandTag(command));
            Err(Error::Command(CStr::from_ptr(name).to_string_lossy().into_owned())).or_raise()
        }
        match BEFORE {
            Some(next) => {
                next(statement, text, is_read_only, context, parameters, environment, receiver, completion);
            }
            None => pg_sys::standard_ProcessUtility(
                statement,
                text,
                is_read_only,
                context,
                parameters,
                environment,
                receiver,
                completion,
            ),
        }
    }
}

/// What a command changes is put back, or takes a right on a table that a DBA has granted.
fn is_allowed(command: NodeTag) -> bool {
    matches!(
        command,
        NodeTag::T_VariableSetStmt
            | NodeTag::T_VariableShowStmt
            | NodeTag::T_ConstraintsSetStmt
            | NodeTag::T_LockStmt
            | NodeTag::T_CopyStmt
            | NodeTag::T_TruncateStmt
            | NodeTag::T_CallStmt
            | NodeTag::T_DoStmt
            | NodeTag::T_ExplainStmt
            | NodeTag::T_NotifyStmt
            | NodeTag::T_DeclareCursorStmt
            | NodeTag::T_FetchStmt
            | NodeTag::T_ClosePortalStmt
    )
}
