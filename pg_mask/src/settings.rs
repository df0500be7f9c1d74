//! What a DBA can set. All of it is for superusers: none may redirect a write or reveal a path to
//! anybody else.

use crate::error::{Error, OrRaise};
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the names of all settings begin with.
const PREFIX: &[u8] = b"pgmask.";

static KEYRING_FILE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"pg_mask.keyring"));
static LOGIN_TABLE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"public.user_logins"));
static LEDGER_DAYS: GucSetting<i32> = GucSetting::<i32>::new(15);

/// The limits where nobody has set one.
pub(crate) const DEFAULT_GUESS_LIMIT: i32 = 10_000;
pub(crate) const DEFAULT_RECOVER_LIMIT: i32 = 100;
/// The highest limit of values an hour that can be set.
pub(crate) const HIGHEST_LIMIT: i32 = 1_000_000_000;

static INVALID_OPTIONAL: GucSetting<InvalidOptional> =
    GucSetting::<InvalidOptional>::new(InvalidOptional::Quarantine);
static GUESS_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(DEFAULT_GUESS_LIMIT);
static VAULT: GucSetting<bool> = GucSetting::<bool>::new(false);
static RECOVER_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(DEFAULT_RECOVER_LIMIT);

/// What becomes of a message with an optional field that is invalid or too long.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub(crate) enum InvalidOptional {
    #[name = c"quarantine"]
    Quarantine,
    #[name = c"null"]
    Null,
}

/// What a client gave when it connected, and had no right to.
///
/// Before the library is loaded, PostgreSQL takes any value for a setting that it does not know, and a client's
/// counts more than what postgresql.conf, the database or the role has. What those had is gone then: with the
/// library comes the built-in default, and not the DBA's value. So such a session does nothing with pg_mask.
/// (Where the server loads the library at its start, such a client does not get in.)
fn refuse_those_of_clients() -> Result<(), Error> {
    // SAFETY: look-ups of the session's own settings, which stay where they are meanwhile (guc.c).
    unsafe {
        #[cfg(feature = "pg15")]
        let (all, count) = (pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions());
        #[cfg(not(feature = "pg15"))]
        let (all, count) = {
            let mut count = 0;
            (pg_sys::get_guc_variables(&mut count), count)
        };
        for setting in std::slice::from_raw_parts(all, usize::try_from(count).unwrap_or(0)) {
            let setting = &**setting;
            let name = CStr::from_ptr(setting.name);
            let is_ours =
                name.to_bytes().get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
            let is_of_client = setting.reset_source == pg_sys::GucSource::PGC_S_CLIENT
                && setting.reset_scontext == pg_sys::GucContext::PGC_BACKEND;
            if is_ours && is_of_client && !may_set(name, setting.reset_srole) {
                return Err(Error::SetByClient(name.to_string_lossy().into_owned()));
            }
        }
    }
    Ok(())
}

/// Whether `role` was granted to set a setting.
fn may_set(name: &CStr, role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up.
    let found =
        unsafe { pg_sys::pg_parameter_aclcheck(name.as_ptr(), role, pg_sys::ACL_SET as pg_sys::AclMode) };
    found == pg_sys::AclResult::ACLCHECK_OK
}

/// In the midst of a parallel query PostgreSQL gives a setting that is defined then its built-in default, whatever
/// postgresql.conf, the database or the role has, and only warns. A parallel worker is exempt while it begins: it gets
/// the leader's values.
pub(crate) fn refuse_while_they_would_be_lost() -> Result<(), Error> {
    // SAFETY: plain look-ups of the process's own state.
    let are_lost = unsafe { pg_sys::IsInParallelMode() && !pg_sys::InitializingParallelWorker };
    if are_lost { Err(Error::LoadedInParallel) } else { Ok(()) }
}

/// Defines the settings and reserves their prefix, so that a misspelt one is an error. The two functions get each value
/// that a limit takes on in this process.
///
/// # Safety
/// The functions raise no error.
pub(crate) unsafe fn define(
    note_guess_limit: pg_sys::GucIntAssignHook,
    note_recover_limit: pg_sys::GucIntAssignHook,
) {
    refuse_those_of_clients().or_raise();
    GucRegistry::define_string_guc(
        c"pgmask.keyring_file",
        c"The file that holds the server's masking keys.",
        c"A relative path starts at the data directory. Only the server's user may have rights to the file.",
        &KEYRING_FILE,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"pgmask.login_table",
        c"The table that logins are written to, with its schema.",
        c"",
        &LOGIN_TABLE,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_int_guc(
        c"pgmask.ledger_days",
        c"For how many days the ledger remembers which messages were taken in.",
        c"SQS keeps a message for 14 days at most; after that it can't come again.",
        &LEDGER_DAYS,
        1,
        30,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"pgmask.invalid_optional",
        c"What becomes of a message with an optional field that is invalid or too long.",
        c"quarantine keeps the message, sealed; null stores it without the field.",
        &INVALID_OPTIONAL,
        GucContext::Suset,
        GucFlags::default(),
    );
    // SAFETY: by the caller.
    unsafe {
        GucRegistry::define_int_guc_with_hooks(
            c"pgmask.guess_limit",
            c"How many values a role may have masked in an hour.",
            c"-1 is no limit. Superusers, members of pgmask_unlimited and ingestion are exempt.",
            &GUESS_LIMIT,
            -1,
            HIGHEST_LIMIT,
            GucContext::Suset,
            GucFlags::default(),
            None,
            note_guess_limit,
            None,
        );
        GucRegistry::define_int_guc_with_hooks(
            c"pgmask.recover_limit",
            c"How many values a role may recover in an hour.",
            c"-1 is no limit. Superusers are exempt.",
            &RECOVER_LIMIT,
            -1,
            HIGHEST_LIMIT,
            GucContext::Suset,
            GucFlags::default(),
            None,
            note_recover_limit,
            None,
        );
    }
    GucRegistry::define_bool_guc(
        c"pgmask.vault",
        c"Whether ingestion keeps the values that it masks, sealed, so that they can be recovered.",
        c"",
        &VAULT,
        GucContext::Suset,
        GucFlags::default(),
    );
    // SAFETY: a plain call with a static string, during _PG_init as PostgreSQL asks for.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pgmask".as_ptr()) };
}

/// `pgmask.ledger_days`, in range: what `current_setting` says before the library is loaded may not be.
#[pg_extern(schema = "pgmask", stable, parallel_safe)]
fn ledger_days() -> i32 {
    LEDGER_DAYS.get()
}

/// `pgmask.invalid_optional`.
pub(crate) fn invalid_optional() -> InvalidOptional {
    INVALID_OPTIONAL.get()
}

/// `pgmask.guess_limit` of this session; -1 is none.
pub(crate) fn guess_limit() -> i32 {
    GUESS_LIMIT.get()
}

/// `pgmask.vault`.
pub(crate) fn vault() -> bool {
    VAULT.get()
}

/// `pgmask.recover_limit` of this session; -1 is none.
pub(crate) fn recover_limit() -> i32 {
    RECOVER_LIMIT.get()
}

/// The keyring's path, absolute.
pub(crate) fn keyring_file() -> PathBuf {
    let setting = KEYRING_FILE.get().unwrap_or_default();
    data_directory().join(OsStr::from_bytes(setting.to_bytes()))
}

/// The server's data directory, absolute.
pub(crate) fn data_directory() -> &'static Path {
    // SAFETY: DataDir is set once, before any backend starts, and never freed.
    let path = unsafe { CStr::from_ptr(pg_sys::DataDir) };
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

/// `pgmask.login_table`, in the server's encoding.
pub(crate) fn login_table() -> CString {
    LOGIN_TABLE.get().unwrap_or_default()
}
