//! Which commands code of a table may run as the [role](crate::own_roles::RoleOfCode) that is there for it. That role owns nothing,
//! but PostgreSQL lets every role change itself (its password, its settings) and the session that it is in
//! (prepared statements, channels that it listens to), also in a security-restricted operation. So what is
//! allowed here is what reads, locks, or is over with the statement.
//!
//! The same goes for the role that dashboards belong to, which could change these, and leave code for their readers there.

use super::{compiled, watched};
use crate::error::Error;
use crate::{own_names, own_roles, session_caches, unguarded};
use pg_sys::NodeTag;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::thread::LocalKey;

thread_local! {
    /// Whether the next SET CONSTRAINTS is a statement of pg_mask's own.
    static OWN_CHECK: Cell<bool> = const { Cell::new(false) };
    /// The same of REFRESH MATERIALIZED VIEW.
    static OWN_REFRESH: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, a SET CONSTRAINTS of pg_mask's own. Code of a table may not have such checks made: they may be another
/// table's, and would run as the role that is there for this one's code.
pub(crate) fn check_constraints<R>(work: impl FnOnce() -> R) -> R {
    own(&OWN_CHECK, work)
}

/// Runs `work`, a REFRESH MATERIALIZED VIEW of pg_mask's own.
pub(super) fn refresh<R>(work: impl FnOnce() -> R) -> R {
    own(&OWN_REFRESH, work)
}

fn own<R>(is_own: &'static LocalKey<Cell<bool>>, work: impl FnOnce() -> R) -> R {
    struct Ended(&'static LocalKey<Cell<bool>>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.set(false); // still there if the statement did not come that far
        }
    }
    let _ended = Ended(is_own);
    is_own.set(true);
    work()
}

/// `ProcessUtility_hook`'s (utility.h).
type Run = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannedStmt,
    *const c_char,
    bool,
    pg_sys::ProcessUtilityContext::Type,
    pg_sys::ParamListInfo,
    *mut pg_sys::QueryEnvironment,
    *mut pg_sys::DestReceiver,
    *mut pg_sys::QueryCompletion,
);

unsafe extern "C-unwind" {
    /// PostgreSQL's own (utility.c), without the guard that pgrx puts around it: an error that passes through that loses
    /// what pgrx has no field for, such as the name of a constraint.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        is_read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// What runs a command: the hook of a library that was loaded before, or PostgreSQL itself.
static mut NEXT: Run = standard_ProcessUtility;

/// What refreshes a view of that object id, where it is a stored result, and says whether it is. Its readers go on meanwhile, if
/// that is asked for.
pub(crate) type Refresh = fn(pg_sys::Oid, bool) -> bool;

static mut REFRESH: Refresh = |_, _| false;

/// Looks at each command from now on, and has stored results refreshed in that way. For `_PG_init`.
pub(super) fn watch(refresh: Refresh) {
    // SAFETY: libraries are loaded one after the other; the function has the signature asked for.
    unsafe {
        REFRESH = refresh;
        if let Some(before) = pg_sys::ProcessUtility_hook {
            NEXT = before;
        }
        pg_sys::ProcessUtility_hook = Some(command);
    }
}

/// It has no guard and keeps nothing, so that PostgreSQL's errors may pass through it as they are.
#[allow(clippy::too_many_arguments)] // PostgreSQL's signature
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
        let (mut role, mut marks) = (pg_sys::InvalidOid, 0);
        unguarded::GetUserIdAndSecContext(&raw mut role, &raw mut marks);
        let command = (*statement).utilityStmt;
        if marks != 0 {
            look_at(command, role, marks);
        } else if session_caches::is_pending() && pg_sys::IsTransactionState() {
            refresh_caches();
        }
        let is_refresh = (*command).type_ == NodeTag::T_RefreshMatViewStmt;
        if is_refresh && OWN_REFRESH.take() {
            watched::refreshes((*command.cast::<pg_sys::RefreshMatViewStmt>()).concurrent);
        } else if is_refresh && refreshed(command) {
            return;
        }
        let sets = marks != 0 && (*command).type_ == NodeTag::T_VariableSetStmt;
        let drops = (*command).type_ == NodeTag::T_DropStmt;
        let was_postgresqls_turn = watched::command_begins();
        NEXT(statement, text, is_read_only, context, parameters, environment, receiver, completion);
        watched::command_ended(was_postgresqls_turn, drops);
        if sets {
            pin_path_again();
        }
    }
}

/// What code of a table gets by RESET is not what the client's session began with.
#[pg_guard]
unsafe extern "C-unwind" fn pin_path_again() {
    if compiled::is_code() {
        own_names::pin_path_again();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn refresh_caches() {
    session_caches::refresh_if_pending();
}

/// Has a stored result of sql/05_dashboards.sql refreshed, whoever asks for it and how, as `logins.refresh_dashboards()` does.
/// Others are not its business.
#[pg_guard]
unsafe extern "C-unwind" fn refreshed(command: *mut pg_sys::Node) -> bool {
    // SAFETY: the node is one of that command; look-ups. What is not there is for PostgreSQL to say.
    unsafe {
        let command: *const pg_sys::RefreshMatViewStmt = command.cast();
        let missing_is_fine = pg_sys::RVROption::RVR_MISSING_OK;
        let (no_lock, none) = (pg_sys::NoLock as i32, std::ptr::null_mut());
        let view =
            pg_sys::RangeVarGetRelidExtended((*command).relation, no_lock, missing_is_fine, None, none);
        !(*command).skipData && view != pg_sys::InvalidOid && REFRESH(view, (*command).concurrent)
    }
}

/// Refuses a command that the role may not run, where PostgreSQL has marked why it is not the session's.
#[pg_guard]
unsafe extern "C-unwind" fn look_at(command: *mut pg_sys::Node, role: pg_sys::Oid, marks: i32) {
    // SAFETY: as above; names of commands are constants.
    unsafe {
        if may_run(command, role, marks as u32 & pg_sys::SECURITY_RESTRICTED_OPERATION != 0) {
            return;
        }
        let name = CStr::from_ptr(pg_sys::GetCommandTagName(pg_sys::CreateCommandTag(command)));
        let role = CStr::from_ptr(pg_sys::GetUserNameFromId(role, false));
        let [command, role] = [name, role].map(|name| name.to_string_lossy().into_owned());
        watched::refuse(|| Error::Command { command: command.clone(), role: role.clone() });
    }
}

/// # Safety
/// `command` is the node of a command.
unsafe fn may_run(command: *mut pg_sys::Node, role: pg_sys::Oid, is_restricted: bool) -> bool {
    // SAFETY: by the caller.
    unsafe {
        let kind = (*command).type_;
        let may_make = kind == NodeTag::T_ExplainStmt && explains_a_command(command);
        let is_refused = match watched::now().map(|watched| watched.role) {
            _ if kind == NodeTag::T_ConstraintsSetStmt && OWN_CHECK.take() => false,
            _ if kind == NodeTag::T_RefreshMatViewStmt && OWN_REFRESH.get() => false,
            Some(_) if resets_all(command) => true,
            Some(_) if is_restricted && makes_a_name(kind) => true,
            Some(ours) if ours == Some(role) => {
                let is_of_refresh = watched::is_postgresqls_turn() && is_of_refresh(command);
                let empties = watched::is_filled() && kind == NodeTag::T_TruncateStmt;
                (may_make || empties || !is_allowed(kind)) && !is_of_refresh
            }
            Some(Some(_)) if watched::is_late() && is_of_refresh(command) => false,
            Some(Some(_)) => may_make || may_lead_rows_away(kind) || kind == NodeTag::T_ConstraintsSetStmt,
            Some(None) => kind == NodeTag::T_ConstraintsSetStmt,
            None if is_restricted && makes_a_name(kind) && is_temporary(command) => true,
            None => own_roles::is_refresher(role) && (may_make || !is_allowed(kind)),
        };
        !is_refused
    }
}

/// Whether it is RESET ALL, which puts settings back to what the session began with, also those that such code may not set.
///
/// # Safety
/// `command` is the node of a command.
unsafe fn resets_all(command: *mut pg_sys::Node) -> bool {
    // SAFETY: by the caller; the node is of the type that its tag says.
    unsafe {
        (*command).type_ == NodeTag::T_VariableSetStmt
            && (*command.cast::<pg_sys::VariableSetStmt>()).kind == pg_sys::VariableSetKind::VAR_RESET_ALL
    }
}

/// Whether EXPLAIN is asked for a command, which it may run: CREATE TABLE AS and CREATE MATERIALIZED VIEW, or a statement that
/// the session has prepared.
///
/// # Safety
/// `command` is the node of an EXPLAIN.
unsafe fn explains_a_command(command: *mut pg_sys::Node) -> bool {
    // SAFETY: by the caller; what is explained was analysed, and so is a query (parsenodes.h).
    unsafe {
        let explained: *mut pg_sys::Query = (*command.cast::<pg_sys::ExplainStmt>()).query.cast();
        (*explained).commandType == pg_sys::CmdType::CMD_UTILITY
    }
}

/// Whether PostgreSQL runs it itself for REFRESH MATERIALIZED VIEW CONCURRENTLY, with temporary tables (matview.c).
///
/// # Safety
/// `command` is the node of a command.
unsafe fn is_of_refresh(command: *mut pg_sys::Node) -> bool {
    let is_temporary = |table: *mut pg_sys::RangeVar| {
        // SAFETY: a command that makes a table names it.
        unsafe { (*table).relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP }
    };
    let is_in_temporary_schema = |table: *mut pg_sys::RangeVar| {
        // SAFETY: a command that changes a table names it; its schema is a C string, or not given.
        unsafe {
            let schema = (*table).schemaname;
            !schema.is_null() && CStr::from_ptr(schema).to_bytes().starts_with(b"pg_temp")
        }
    };
    // SAFETY: by the caller; each node is of the type that its tag says.
    unsafe {
        match (*command).type_ {
            NodeTag::T_VacuumStmt => true,
            NodeTag::T_CreateStmt => is_temporary((*command.cast::<pg_sys::CreateStmt>()).relation),
            NodeTag::T_CreateTableAsStmt => {
                is_temporary((*(*command.cast::<pg_sys::CreateTableAsStmt>()).into).rel)
            }
            NodeTag::T_AlterTableStmt => {
                is_in_temporary_schema((*command.cast::<pg_sys::AlterTableStmt>()).relation)
            }
            NodeTag::T_DropStmt => {
                (*command.cast::<pg_sys::DropStmt>()).removeType == pg_sys::ObjectType::OBJECT_TABLE
            }
            _ => false,
        }
    }
}

/// Whether it makes a type, or another thing that statements find by its name. In a security-restricted operation code of
/// others could make it in the temporary schema of whoever's session that is, where types are looked for first: `text` in
/// the session's next statement would be theirs. (Newer minor versions of PostgreSQL refuse it.)
fn makes_a_name(command: NodeTag) -> bool {
    matches!(
        command,
        NodeTag::T_CreateDomainStmt
            | NodeTag::T_CreateEnumStmt
            | NodeTag::T_CreateRangeStmt
            | NodeTag::T_CompositeTypeStmt
            | NodeTag::T_DefineStmt
            | NodeTag::T_CreateFunctionStmt
            | NodeTag::T_CreateConversionStmt
            | NodeTag::T_CreateOpClassStmt
            | NodeTag::T_CreateOpFamilyStmt
            | NodeTag::T_CreateStatsStmt
            | NodeTag::T_RenameStmt
            | NodeTag::T_AlterObjectSchemaStmt
    )
}

/// Whether what a command makes would be in a temporary schema.
///
/// # Safety
/// `command` is the node of a command that [makes a name](makes_a_name).
unsafe fn is_temporary(command: *mut pg_sys::Node) -> bool {
    // SAFETY: by the caller; each node is of the type that its tag says, and has its name as a list.
    unsafe {
        let names = match (*command).type_ {
            NodeTag::T_CreateDomainStmt => (*command.cast::<pg_sys::CreateDomainStmt>()).domainname,
            NodeTag::T_CreateEnumStmt => (*command.cast::<pg_sys::CreateEnumStmt>()).typeName,
            NodeTag::T_CreateRangeStmt => (*command.cast::<pg_sys::CreateRangeStmt>()).typeName,
            NodeTag::T_DefineStmt => (*command.cast::<pg_sys::DefineStmt>()).defnames,
            NodeTag::T_CreateFunctionStmt => (*command.cast::<pg_sys::CreateFunctionStmt>()).funcname,
            NodeTag::T_CreateConversionStmt => {
                (*command.cast::<pg_sys::CreateConversionStmt>()).conversion_name
            }
            NodeTag::T_CreateOpClassStmt => (*command.cast::<pg_sys::CreateOpClassStmt>()).opclassname,
            NodeTag::T_CreateOpFamilyStmt => (*command.cast::<pg_sys::CreateOpFamilyStmt>()).opfamilyname,
            NodeTag::T_CompositeTypeStmt => {
                let name = (*command.cast::<pg_sys::CompositeTypeStmt>()).typevar;
                return pg_sys::isAnyTempNamespace(pg_sys::RangeVarGetCreationNamespace(name));
            }
            // Statistics are not found by a name, and what is there is not moved to or from a temporary schema.
            _ => return false,
        };
        let mut name = std::ptr::null_mut();
        pg_sys::isAnyTempNamespace(pg_sys::QualifiedNameGetCreationNamespace(names, &raw mut name))
    }
}

/// Whether it may have rows go to a table that was not there when the partitions were looked at, or by a trigger or a rule that was not. A lock
/// keeps others from that, but not the transaction that has it.
fn may_lead_rows_away(command: NodeTag) -> bool {
    matches!(
        command,
        NodeTag::T_CreateStmt
            | NodeTag::T_CreateForeignTableStmt
            | NodeTag::T_ImportForeignSchemaStmt
            | NodeTag::T_AlterTableStmt
            | NodeTag::T_CreateTrigStmt
            | NodeTag::T_RuleStmt
    )
}

/// Whether what a command changes is put back, or takes a right on a table that a DBA has granted.
fn is_allowed(command: NodeTag) -> bool {
    matches!(
        command,
        NodeTag::T_VariableSetStmt
            | NodeTag::T_VariableShowStmt
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
