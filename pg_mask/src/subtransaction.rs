//! Trying something that the database may refuse, without losing the transaction.

use crate::error::{Error, OrRaise};
use crate::own_roles::RoleOfCode;
use crate::quiet::Settings;
use crate::session_caches;
use crate::short_errors;
use crate::sqlstate::unpacked;
use crate::unguarded;
use pgrx::prelude::*;
use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe};

/// An error, by what its text in any language has in common.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) sqlstate: [u8; 5],
    /// The function of the server that raised it, where that is known.
    raised_in: Option<String>,
    /// What code of a table left, if that is why.
    pub(crate) left: Option<Left>,
    /// Its text, where it was asked for.
    pub(crate) text: Option<Box<ErrorText>>,
}

/// What the server says of an error, which may hold a row.
#[derive(Clone)]
pub(crate) struct ErrorText {
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    /// Where code was, a line for each function.
    pub(crate) context: Option<String>,
}

/// What code of a table may not leave.
#[derive(Clone, Copy)]
pub(crate) enum Left {
    /// Something that the role would own.
    Behind(RoleOfCode),
    /// A cursor.
    Open,
}

impl From<Left> for Error {
    fn from(left: Left) -> Self {
        match left {
            Left::Behind(role) => Self::LeftBehind(role),
            Left::Open => Self::CursorLeft,
        }
    }
}

/// Ends the work of an [`attempt`] for that reason, as an error of the server's would.
pub(crate) fn give_up(left: Left) -> ! {
    LEFT.set(Some(left));
    match Err::<Infallible, Error>(left.into()).or_raise() {}
}

impl Failure {
    /// A policy of the table says no.
    pub(crate) fn is_of_a_policy(&self) -> bool {
        self.is("42501", "ExecWithCheckOptions")
    }

    /// The statement was to end: by a cancel, a timeout, or the end of the server.
    pub(crate) fn is_interrupt(&self) -> bool {
        self.raised_in.as_deref() == Some("ProcessInterrupts")
    }

    fn is(&self, sqlstate: &str, raised_in: &str) -> bool {
        self.sqlstate == sqlstate.as_bytes() && self.raised_in.as_deref() == Some(raised_in)
    }
}

/// Runs `work` in a subtransaction of its own. If the server raises an error in it that `is_refusal` accepts,
/// its effects are undone and the error is returned; any other goes on its way. An error of ours undoes its effects as well.
pub(crate) fn attempt<R>(
    work: impl FnOnce() -> Result<R, Error>,
    is_refusal: impl Fn(&Failure) -> bool + UnwindSafe + RefUnwindSafe,
) -> Result<Result<R, Error>, Failure> {
    attempt_for(Purpose::Effects, work, Result::is_ok, is_refusal)
}

/// Runs `work` to see whether it fails, and with what text: its effects are undone in any case. An interrupt goes on its way.
pub(crate) fn try_out<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    short_errors::keep_context();
    attempt_for(Purpose::Texts, work, |_| false, |failure| !failure.is_interrupt())
}

/// What is wanted of an attempt.
#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    Effects,
    Texts,
}

fn attempt_for<T>(
    purpose: Purpose,
    work: impl FnOnce() -> T,
    keeps: impl FnOnce(&T) -> bool,
    is_refusal: impl Fn(&Failure) -> bool + UnwindSafe + RefUnwindSafe,
) -> Result<T, Failure> {
    // SAFETY: as PL/pgSQL does for a block with an EXCEPTION clause (pl_exec.c, exec_stmt_block):
    // memory context, resource owner and error context are put back on every way out.
    unsafe {
        let settings = Settings::now();
        // The client may want errors to end its session (exit_on_error): those that are caught here are none of its own.
        let exits = std::ptr::replace(&raw mut pg_sys::ExitOnAnyError, false);
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let error_context = pg_sys::error_context_stack;
        let mut notes = pg_sys::ErrorContextCallback {
            // What is outside of it has statements and parameters of the client, which `work` is not to see
            // (GET DIAGNOSTICS … PG_CONTEXT).
            previous: std::ptr::null_mut(),
            callback: Some(note_sqlstate),
            arg: std::ptr::null_mut(),
        };
        pg_sys::error_context_stack = &raw mut notes;
        NOTED.set(INTERNAL_ERROR);
        let done = PgTryBuilder::new(AssertUnwindSafe(|| {
            let done = work();
            pg_sys::ExitOnAnyError = exits;
            pg_sys::error_context_stack = error_context;
            if keeps(&done) {
                pg_sys::ReleaseCurrentSubTransaction();
            } else {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
                settings.put_in_force();
            }
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
            Ok(done)
        }))
        .catch_others(move |error| {
            pg_sys::ExitOnAnyError = exits;
            pg_sys::error_context_stack = error_context;
            let text = |report: &pg_sys::panic::ErrorReportWithLevel| ErrorText {
                message: report.message().to_owned(),
                detail: report.detail().map(str::to_owned),
                hint: report.hint().map(str::to_owned),
                context: short_errors::take_context(),
            };
            let failure = match &error {
                pg_sys::panic::CaughtError::PostgresError(report) => Some(Failure {
                    sqlstate: match report.sql_error_code() {
                        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR => unpacked(NOTED.get()),
                        code => unpacked(code as i32),
                    },
                    raised_in: report.function_name().map(str::to_owned),
                    left: None,
                    text: (purpose == Purpose::Texts).then(|| Box::new(text(report))),
                }),
                pg_sys::panic::CaughtError::ErrorReport(_) => LEFT.take().map(|left| Failure {
                    sqlstate: *b"42501",
                    raised_in: None,
                    left: Some(left),
                    text: None,
                }),
                // Ours: whatever it is, it is not the row's.
                pg_sys::panic::CaughtError::RustPanic { .. } => None,
            };
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::FlushErrorState();
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            // Code that had set one of them itself has it put back to what it found, which was not the client's.
            settings.put_in_force();
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
            if !matches!(&failure, Some(failure) if is_refusal(failure)) {
                session_caches::refresh_if_pending();
            }
            // Only now: an error must not leave the subtransaction open.
            match failure {
                Some(failure) if is_refusal(&failure) => Err(failure),
                _ => error.rethrow(),
            }
        })
        .execute();
        // Only here: it may fail, and the subtransaction has ended.
        session_caches::refresh_if_pending();
        done
    }
}

const INTERNAL_ERROR: i32 = PgSqlErrorCode::ERRCODE_INTERNAL_ERROR as i32;

thread_local! {
    /// The last SQLSTATE inside of an [`attempt`] that pgrx has no name for: it hands such an error on as
    /// an internal error. Somebody's own code, that is, as a trigger may raise it.
    static NOTED: Cell<i32> = const { Cell::new(INTERNAL_ERROR) };
    /// Why an [`attempt`] was [given up](give_up).
    static LEFT: Cell<Option<Left>> = const { Cell::new(None) };
}

/// Called by the server whenever it reports something (`error_context_stack` in elog.c).
extern "C-unwind" fn note_sqlstate(_: *mut c_void) {
    // SAFETY: it reads the error that is being reported, as such callbacks may.
    let code = unsafe { unguarded::geterrcode() };
    if matches!(PgSqlErrorCode::from(code), PgSqlErrorCode::ERRCODE_INTERNAL_ERROR) {
        NOTED.set(code);
    }
}
