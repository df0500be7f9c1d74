//! What a person reads when something is wrong: what happened, to what, and what to do about it.
//! No text here ever holds a value, a message or a key.

use crate::own_roles::RoleOfCode;
use crate::sqlstate;
use pg_mask_core::key_file::KeyFileError;
use pg_mask_core::keyring::{KeyringError, Which};
use pg_mask_core::login::Refusal;
use pg_mask_core::seal::SealError;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::path::{Path, PathBuf};

/// Everything that pg_mask itself reports.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("pg_mask can't use its keyring{}: {error}", shown(path))]
    KeyFile { path: PathBuf, error: KeyFileError },
    #[error("pg_mask can't use its keyring{}: {error}", shown(path))]
    Keyring { path: PathBuf, error: KeyringError },
    #[error(
        "this node is a worker of a Citus cluster and has no keyring{}: one of its own would mask equal values differently",
        shown(path)
    )]
    CitusWorker { path: PathBuf },
    #[error("the server's keyring has no {0}, which this database was {use} with", use = used(*.0))]
    KeyMissing(Which),
    #[error("{0} of the server's keyring is not the key that this database was {use} with", use = used(*.0))]
    KeyDiffers(Which),
    #[error("the server's keyring does not have the key that was just added to it")]
    NoNextKey,
    #[error("the tables of pgmask.key_check are not there or not as pg_mask made them")]
    KeyCheckTable,
    #[error("pgmask.key_check does not say what keys this database was masked with: it has no row of one")]
    KeyCheckEmpty,
    #[error("pgmask.key_check has rows of later generations and none of generation {generation}")]
    KeyCheckGap { generation: u32 },
    #[error("pg_mask can't seal a message for the quarantine: pgmask.key_check has no row of a seal key")]
    NoSealKey,
    #[error("table \"{0}\", where logins are written, does not exist")]
    NoLoginTable(String),
    #[error("\"{0}\", where logins are written, is not a table")]
    NotATable(String),
    #[error("table \"{table}\" has no column \"{column}\"")]
    NoColumn { table: String, column: &'static str },
    #[error("column \"{column}\" of table \"{table}\" is of the type {found}, which takes no {wanted}")]
    ColumnType { table: String, column: &'static str, found: String, wanted: &'static str },
    #[error("column \"{column}\" of table \"{table}\" is generated, so nothing can be written into it")]
    ColumnNotWritable { table: String, column: &'static str },
    #[error(
        "logins have no value for {columns} of table \"{table}\", and that takes no NULL and has no default"
    )]
    Unfilled { table: String, columns: String },
    #[error("column \"{column}\" of table \"{table}\" has no room for a token of {needed} characters")]
    NarrowColumn { table: String, column: &'static str, needed: usize },
    #[error("there is no table with the OID {oid}")]
    NoTable { oid: u32 },
    #[error("only its owner may have the tokens in table {0} lifted")]
    NotOwner(String),
    #[error(
        "table {table} is not changed: its trigger {trigger} could have rows go to any partition, with the rights of the owner of {root}"
    )]
    Movers { table: String, trigger: String, root: String },
    #[error(
        "table {table} is not changed: the foreign key {key} would change with it, as that table's owner"
    )]
    Cascades { table: String, key: String },
    #[error("partition {0} is on another server, which remask would ask with the rights of others")]
    ForeignPartition(String),
    #[error("a part of remask has to be the first thing that its transaction writes")]
    NotFirstToWrite,
    #[error("which columns of the login table {0} hold tokens is not for others than its owner to say")]
    ColumnsOfLoginTable(String),
    #[error("table {table} has no column \"{column}\"")]
    NoSuchColumn { table: String, column: String },
    #[error("{given} columns are named, and a table has no more than {most}")]
    TooManyColumns { given: usize, most: usize },
    #[error("table {0} has no column whose name begins with \"masked_\"")]
    NoTokenColumns(String),
    #[error("column \"{column}\" of table {table} is no text")]
    NotAText { table: String, column: String },
    #[error("column \"{column}\" of table {table} is generated")]
    GeneratedColumn { table: String, column: String },
    #[error("column \"{column}\" of table {table} has no room for a token of {needed} characters")]
    NarrowTokenColumn { table: String, column: String, needed: usize },
    #[error(
        "role \"{role}\" has masked as many values as pgmask.guess_limit allows in an hour, {limit}; it may go on at {again_at}"
    )]
    GuessLimit { role: String, limit: u32, again_at: String },
    #[error("role \"{role}\" is a group, or can't log in: what it has masked counts for its members alone")]
    GroupsBudget { role: String },
    #[error(
        "nothing is masked by a SECURITY DEFINER function in maintenance, nor by what a foreign key changes"
    )]
    MaskedByMaintenance,
    #[error("pgmask_refresher masks no value, and lifts none that is a hash without a key")]
    MaskedByRefresh,
    #[error(
        "role \"{role}\" has recovered as many values as pgmask.recover_limit allows in an hour, {limit}; it may go on at {again_at}"
    )]
    RecoverLimit { role: String, limit: u32, again_at: String },
    #[error(
        "so many roles have masked values in this hour that no more can be counted; they may at {again_at}"
    )]
    GuessTable { again_at: String },
    #[error("a domain of {bytes} bytes is too long: it may have {most}")]
    LongDomain { bytes: usize, most: usize },
    #[error("a prefix of {given} bits is not between 0 and {most}")]
    PrefixLength { given: i32, most: u8 },
    #[error("{}table \"{table}\" is temporary, unlogged or foreign, and would lose logins that the ledger knows", part_of(part.as_ref()))]
    LosesRows { table: String, part: Option<String> },
    #[error("table \"{0}\" has a rule that does something else instead of inserting")]
    RuleInstead(String),
    #[error("role {0} does not exist")]
    NoRole(RoleOfCode),
    #[error("role {0} could do more than that: it {1}")]
    MightyRole(RoleOfCode, String),
    #[error("permission denied for materialized view {0}")]
    MayNotRefresh(String),
    #[error("code of the table makes things that role {0} would own")]
    LeftBehind(RoleOfCode),
    #[error("what this call wrote into pgmask.audit may not have reached the synchronous standby")]
    NotOnStandby,
    #[error("code of the table leaves a cursor open")]
    CursorLeft,
    #[error("code of the table runs {command}, which role {role} may not")]
    Command { command: String, role: String },
    #[error("code of a table calls what runs code of tables itself")]
    CalledByCode,
    #[error("code of the table calls {0}(), which reaches what belongs to the session")]
    Function(String),
    #[error(
        "code of table {table} may not use {other} as pgmask_writer does, as the owner of {table} may not"
    )]
    NotOwnersToUse { other: String, table: String },
    #[error("code of a table writes into table {0}, which pg_mask is filling")]
    WritesBeside(String),
    #[error(
        "pgmask.{0} waits for others and has to see what they did, which a transaction of this isolation level does not"
    )]
    SeesNothingNew(&'static str),
    #[error(
        "while pgmask.vault is on, nothing is taken in by a transaction that is REPEATABLE READ or SERIALIZABLE"
    )]
    VaultOfBefore,
    #[error("code of a table calls {0}() after it has changed how statements are read")]
    ReadsOtherwise(String),
    #[error("this session has {0} open, which code of a table could use")]
    OpenMeanwhile(String),
    #[error("this session has made {0} for itself, which code of a table could meet")]
    MadeForItself(String),
    #[error("this session has used {0}(), and could decide on what it means for code of a table")]
    CalledBefore(String),
    #[error(
        "this session has used {0}(), which PostgreSQL looks up once, and code of a table could be the first to call"
    )]
    LookedUp(String),
    #[error(
        "code of tables is not run in the midst of maintenance (ANALYZE, an index, a materialized view) or of logical replication"
    )]
    InMaintenance,
    #[error("code of a table changes a key that table {0} follows")]
    FollowsKey(String),
    #[error("{view} could not be refreshed: SQLSTATE {}", shown_sqlstate(sqlstate))]
    NotRefreshed { view: String, sqlstate: [u8; 5] },
    #[error("role pgmask_refresher is a member of {0}, and code of the login table would have its rights")]
    RefresherMember(String),
    #[error("the relation with object id {0} is no stored result of pgmask_refresher's")]
    NotStored(u32),
    #[error("role pgmask_writer may not insert into table \"{table}\": it needs {right}")]
    WriterLacks { table: String, right: String },
    #[error("table \"{0}\" has row level security and no policy by which role pgmask_writer may insert")]
    NoPolicy(String),
    #[error("logins could not be inserted into table \"{table}\": SQLSTATE {}", shown_sqlstate(sqlstate))]
    NotInserted { table: String, sqlstate: [u8; 5] },
    #[error("tokens in table {table} could not be lifted: SQLSTATE {}", shown_sqlstate(sqlstate))]
    NotLifted { table: String, sqlstate: [u8; 5] },
    #[error("rows of table {table} could not be looked at: SQLSTATE {}", shown_sqlstate(sqlstate))]
    NotLookedAt { table: String, sqlstate: [u8; 5] },
    #[error(
        "a check of table {0} waits in this transaction, under the name of a constraint of the login table"
    )]
    SameNameWaits(String),
    #[error("the table was exchanged for another of its name meanwhile")]
    Exchanged,
    #[error("{0}")]
    BatchShape(&'static str),
    #[error(
        "a transaction in which pg_mask took messages in or looked at tables for somebody can't be prepared"
    )]
    Prepared,
    #[error("pg_mask is dropped by superusers alone")]
    Dropped,
    #[error("extension pg_mask was dropped meanwhile")]
    Gone,
    #[error("the schema that pg_mask is in is a member of an extension, and would take pg_mask along")]
    TakenAlong,
    #[error("this session's client set {0} as it connected, which only a superuser may")]
    SetByClient(String),
    #[error("pg_mask can't be loaded in the midst of a parallel query")]
    LoadedInParallel,
    #[error("a batch may have {most} messages")]
    TooManyMessages { most: usize },
    #[error("what is taken in at once may have {most} bytes")]
    TooManyBytes { most: usize },
    #[error("pg_mask has no memory for this")]
    Memory,
    #[error("pg_mask can't read what one of its own statements answered")]
    Unreadable,
    #[error("the login was refused: {0}")]
    Refused(Refusal),
    #[error("pg_mask can't seal a message for the quarantine: {0}")]
    Seal(#[from] SealError),
    #[error("message {id} of the quarantine can't be opened: {error}")]
    Unseal { id: i64, error: SealError },
    #[error("what was given is no token")]
    NotAToken,
    #[error("the vault has no value of this token")]
    NotInVault,
    #[error("the value of this token can't be opened: {0}")]
    VaultValue(SealError),
    #[error("there is no message {} in the quarantine", .0.map_or("NULL".to_owned(), |id| id.to_string()))]
    NotInQuarantine(Option<i64>),
    #[error("{0} for a reason only")]
    NoReason(&'static str),
    #[error("a reason may have {most} bytes")]
    LongReason { most: usize },
    #[error("pgmask.{0} has to be called by itself")]
    NotDirectly(&'static str),
    #[error("the role that this session logged in as may not act as {0} any more")]
    MayNotActAs(String),
    #[error("the end of pgmask.audit is not as pg_mask left it, so nothing can be added to it")]
    AuditChanged,
    #[error("pgmask.database_id is empty, so nothing can be sealed, opened or audited")]
    NoDatabaseId,
}

impl Error {
    fn sqlstate(&self) -> PgSqlErrorCode {
        match self {
            Self::Memory
            | Self::Seal(SealError::Memory)
            | Self::VaultValue(SealError::Memory)
            | Self::Unseal { error: SealError::Memory, .. } => PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
            Self::KeyFile { .. }
            | Self::Keyring { .. }
            | Self::CitusWorker { .. }
            | Self::KeyMissing(_)
            | Self::KeyDiffers(_)
            | Self::NoNextKey
            | Self::KeyCheckEmpty
            | Self::KeyCheckGap { .. }
            | Self::NoSealKey
            | Self::Seal(_)
            | Self::VaultValue(SealError::UnknownKey(_) | SealError::NewerKey(_))
            | Self::Unseal { error: SealError::UnknownKey(_) | SealError::NewerKey(_), .. } => {
                PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR
            }
            Self::Unseal { .. } | Self::VaultValue(_) | Self::NoDatabaseId | Self::AuditChanged => {
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED
            }
            Self::NotInQuarantine(_) | Self::NotInVault => PgSqlErrorCode::ERRCODE_NO_DATA_FOUND,
            Self::KeyCheckTable | Self::NoLoginTable(_) | Self::NoTable { .. } => {
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE
            }
            Self::NotATable(_)
            | Self::NotStored(_)
            | Self::LosesRows { .. }
            | Self::ForeignPartition(_)
            | Self::RuleInstead(_) => PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            Self::NoColumn { .. } | Self::NoSuchColumn { .. } | Self::NoTokenColumns(_) => {
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN
            }
            Self::ColumnType { .. }
            | Self::NarrowColumn { .. }
            | Self::NarrowTokenColumn { .. }
            | Self::NotAText { .. } => PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            Self::Unfilled { .. } => PgSqlErrorCode::ERRCODE_INVALID_COLUMN_DEFINITION,
            Self::GeneratedColumn { .. } | Self::ColumnNotWritable { .. } => {
                PgSqlErrorCode::ERRCODE_GENERATED_ALWAYS
            }
            Self::MightyRole(..)
            | Self::MayNotRefresh(_)
            | Self::RefresherMember(_)
            | Self::LeftBehind(_)
            | Self::GroupsBudget { .. }
            | Self::MaskedByMaintenance
            | Self::MaskedByRefresh
            | Self::Command { .. }
            | Self::CalledByCode
            | Self::Function(_)
            | Self::WritesBeside(_)
            | Self::NotOwnersToUse { .. }
            | Self::MayNotActAs(_)
            | Self::MadeForItself(_)
            | Self::CalledBefore(_)
            | Self::LookedUp(_)
            | Self::InMaintenance
            | Self::OpenMeanwhile(_)
            | Self::ReadsOtherwise(_)
            | Self::FollowsKey(_)
            | Self::CursorLeft
            | Self::SameNameWaits(_)
            | Self::WriterLacks { .. }
            | Self::NoPolicy(_)
            | Self::NotOwner(_)
            | Self::ColumnsOfLoginTable(_)
            | Self::Dropped
            | Self::TakenAlong
            | Self::SetByClient(_) => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            Self::NotFirstToWrite => PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            Self::NotOnStandby => PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
            Self::NoRole(_) => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            Self::NotInserted { sqlstate, .. }
            | Self::NotLifted { sqlstate, .. }
            | Self::NotRefreshed { sqlstate, .. } => sqlstate::error_code(sqlstate),
            // Not the SQLSTATE itself, which no EXCEPTION WHEN OTHERS catches.
            Self::NotLookedAt { .. } => PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
            Self::Exchanged => PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            Self::BatchShape(_) => PgSqlErrorCode::ERRCODE_ARRAY_ELEMENT_ERROR,
            Self::Unreadable => PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            Self::Prepared
            | Self::VaultOfBefore
            | Self::SeesNothingNew(_)
            | Self::Cascades { .. }
            | Self::Movers { .. } => PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            Self::GuessLimit { .. } | Self::RecoverLimit { .. } | Self::GuessTable { .. } => {
                PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED
            }
            Self::LongDomain { .. }
            | Self::TooManyColumns { .. }
            | Self::LongReason { .. }
            | Self::TooManyMessages { .. }
            | Self::TooManyBytes { .. } => PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            Self::NotDirectly(_) | Self::LoadedInParallel | Self::Gone => {
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            Self::PrefixLength { .. } | Self::Refused(_) | Self::NoReason(_) | Self::NotAToken => {
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE
            }
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::KeyFile { error: KeyFileError::Missing, .. } => {
                "Put the keyring back from your backup of it; without it, tokens can't be continued. SHOW pgmask.keyring_file tells a superuser where it belongs."
            }
            Self::KeyFile { error: KeyFileError::Mode(_) | KeyFileError::Owner { .. }, .. } => {
                "Give the file to the server's user alone: chown postgres, chmod 600. A file of root's may have mode 640."
            }
            Self::KeyFile { error: KeyFileError::OfRoot, .. } => {
                "Have its owner add a key and put the file in its place; docs/operations.md shows how. The new key waits then, until it is put to use."
            }
            Self::KeyFile { error: KeyFileError::Locked, .. } | Self::Exchanged => "Try again.",
            Self::KeyFile { .. } => {
                "pgmask.keyring_file has to name a regular file that belongs to the server's user, with mode 600, or to root, with mode 640."
            }
            Self::CitusWorker { .. } => {
                "Copy the coordinator's keyring to this place first, for the server's user alone (chmod 600), then create the extension. SHOW pgmask.keyring_file tells on each node where its keyring belongs."
            }
            Self::Keyring { .. } => "Put the keyring back from your backup of it.",
            Self::KeyMissing(_) | Self::KeyDiffers(_) => {
                "Put the keyring of the server that this database comes from in place of this server's; no restart is needed. SELECT * FROM pgmask.key_status() shows a superuser which key differs."
            }
            Self::NoNextKey => "Something else changes the file: find out what, and call the function again.",
            Self::KeyCheckTable => "Restore them from a backup, or drop and create the extension.",
            Self::KeyCheckEmpty | Self::KeyCheckGap { .. } => {
                "Restore its rows from a dump of this database. Only if nothing was ever masked here: drop and create the extension."
            }
            Self::NoSealKey => "SELECT pgmask.rotate_seal_key() adds one to the keyring and puts it to use.",
            Self::NoLoginTable(_) => {
                "Apply sql/01_user_logins.sql to this database, or let pgmask.login_table name the table."
            }
            Self::NotATable(_) | Self::NoColumn { .. } => {
                "Compare it with sql/01_user_logins.sql, or let pgmask.login_table name another table."
            }
            Self::NoTable { .. } => "Give the name of a table: 'public.user_logins'.",
            Self::NotOwner(_) => "Call remask as the owner of the table, or as a member of its owner's role.",
            Self::Movers { .. } => {
                "Have its owner drop it. What it does, a trigger of the root's may do, with a function that the root's owner has written."
            }
            Self::Cascades { .. } => {
                "As the owner of both, and no superuser, UPDATE the table itself: SET column = pgmask.current_mask(column). Code of the tables runs with the rights of whoever does it."
            }
            Self::ForeignPartition(_) => "Detach it, or lift its tokens on that server.",
            Self::NotFirstToWrite => {
                "CALL pgmask.remask(...) does all parts, each in a transaction of its own."
            }
            Self::ColumnsOfLoginTable(_) => "Leave the arguments columns and domain out.",
            Self::NoSuchColumn { .. } | Self::NoTokenColumns(_) | Self::TooManyColumns { .. } => {
                "Name the columns that hold tokens: columns => '{...}'."
            }
            Self::ColumnType { .. } => {
                "As the table's owner, give the column the type that sql/01_user_logins.sql gives it; or add a cast: CREATE CAST (text AS ...) WITH INOUT AS ASSIGNMENT."
            }
            Self::ColumnNotWritable { .. } => {
                "As the table's owner, make it a plain column; or let pgmask.login_table name another table."
            }
            Self::Unfilled { .. } => {
                "As the table's owner, give it a default (ALTER TABLE ... ALTER COLUMN ... SET DEFAULT ...), let it be NULL (... DROP NOT NULL), or fill it in a trigger BEFORE INSERT."
            }
            Self::NotAText { .. } => "Tokens are texts: name columns of the types text, varchar or char.",
            Self::GeneratedColumn { .. } => "Lift the column that it is generated from.",
            Self::NarrowColumn { .. } | Self::NarrowTokenColumn { .. } => {
                "As the table's owner, whose checks PostgreSQL runs then, widen it: ALTER TABLE ... ALTER COLUMN ... TYPE varchar(256)."
            }
            Self::GuessLimit { .. } => {
                "Whoever masks many values as a part of the job asks the DBA for membership in pgmask_unlimited. Comparing tokens that are stored needs no masking."
            }
            Self::RecoverLimit { .. } => {
                "Whoever recovers more values as a part of the job asks the DBA for a higher pgmask.recover_limit."
            }
            Self::GroupsBudget { .. } => {
                "None of them runs this. Let a table or view belong to a role that logs in and has no members; let a SECURITY DEFINER function belong to a role that is there for it, without members, and grant that one pgmask_unlimited: it then counts for its callers alone."
            }
            Self::MaskedByMaintenance => {
                "It would not count for those whose code that is. An index or materialized view calls mask_pii itself; what a foreign key deletes is masked before."
            }
            Self::MaskedByRefresh => {
                "Code of the login table would try guesses while dashboards are refreshed. If the table holds tokens of generation 0, lift them first: CALL pgmask.remask('public.user_logins')."
            }
            Self::GuessTable { .. } => {
                "Let people share roles, or grant pgmask_unlimited to those whose job is masking."
            }
            Self::LongDomain { .. } => {
                "Give a short name of what is masked, such as 'email'; the value to mask is the first argument."
            }
            Self::PrefixLength { .. } => {
                "Give the length of a network's prefix: v4_bits for IPv4 addresses, v6_bits for IPv6."
            }
            Self::LosesRows { .. } => {
                "As the table's owner: ALTER TABLE ... SET LOGGED; or keep that partition elsewhere."
            }
            Self::RuleInstead(_) => "Use a trigger.",
            Self::NoRole(_) => "Apply sql/00_roles.sql, and sql/02_rights.sql to this database.",
            Self::MightyRole(..) => {
                "Code of the table would have that right. Take it from the role; sql/00_roles.sql makes one that is as it should be. What another role has granted is revoked with GRANTED BY that role: see pg_auth_members."
            }
            Self::MayNotRefresh(_) => {
                "It belongs to pgmask_refresher; operators call logins.refresh_dashboards()."
            }
            Self::RefresherMember(_) => {
                "REVOKE it FROM pgmask_refresher, GRANTED BY the role that granted it: see pg_auth_members."
            }
            Self::NotRefreshed { .. } => {
                "What the server says is not shown, as it may hold a row. A superuser who calls it is shown it."
            }
            Self::LeftBehind(_) | Self::Command { .. } => {
                "Let a function do that which is SECURITY DEFINER and owned by another role."
            }
            Self::NotOnStandby => "Nothing else was done. Call it again once the standby answers.",
            Self::CalledByCode => "Call it in a statement of its own, before this one or after it.",
            Self::Function(_) => {
                "Use what ends with the transaction: pg_advisory_xact_lock, or a column of type bytea."
            }
            Self::FollowsKey(_) => {
                "ON UPDATE and ON DELETE change that table as its owner, with whoever's triggers: let code of the table change no such key."
            }
            Self::NotStored(_) => "REFRESH MATERIALIZED VIEW refreshes any other.",
            Self::SeesNothingNew(_) => {
                "BEGIN ISOLATION LEVEL READ COMMITTED, or RESET default_transaction_isolation."
            }
            Self::VaultOfBefore => {
                "It would not see what was forgotten meanwhile, and its locks would show where in the vault a value is. Let it be READ COMMITTED, which is enough."
            }
            Self::ReadsOtherwise(_) => "Leave standard_conforming_strings and its like as they are.",
            Self::OpenMeanwhile(_) => {
                "Close cursors over its table, and don't read that in the same statement."
            }
            Self::MadeForItself(_) | Self::LookedUp(_) => "Do this in another session.",
            Self::InMaintenance => {
                "Do this in a statement of its own; take messages that replication brings from their table afterwards."
            }
            Self::CalledBefore(_) => {
                "Do this in another session, or have that function look names up in one way: ALTER FUNCTION ... SET search_path."
            }
            Self::NotOwnersToUse { .. } => {
                "GRANT to the owners of the login table and of its partitions, too, what its code is to do there."
            }
            Self::WritesBeside(_) => "Let a trigger change the row itself, or write into another table.",
            Self::CursorLeft => {
                "Close it where it was opened: after the loop, or with spi_cursor_close. It would be run on with other rights."
            }
            Self::WriterLacks { .. } => "GRANT that TO pgmask_writer.",
            Self::NoPolicy(_) => "CREATE POLICY ... ON ... FOR INSERT TO pgmask_writer WITH CHECK (...).",
            Self::NotInserted { sqlstate: [b'4', b'2', ..], .. } => {
                "A trigger, default, constraint or policy of the table lacks something. They run as role pgmask_writer with the search path pg_catalog, pg_temp, and may not run commands such as ALTER ROLE: docs/operations.md says what such a table needs. To see what the server says, try a login that you make up, as a superuser: SELECT * FROM pgmask.try_login('{...}')."
            }
            Self::NotInserted { .. } => {
                "What the server says is not shown, as it may hold a value. To see it, try a login that you make up, as a superuser: SELECT * FROM pgmask.try_login('{...}')."
            }
            Self::SameNameWaits(_) => {
                "It would be looked at together with that. Give one of the two another name, or SET CONSTRAINTS ALL IMMEDIATE before."
            }
            Self::NotLifted { .. } => {
                "What the server says is not shown, as it may hold a row. The table's owner, or a superuser, is shown it."
            }
            Self::NotLookedAt { .. } => {
                "A function of the table's, in an index perhaps, raised an error that is the server's to raise."
            }
            Self::BatchShape(_) => {
                "Give four arrays of one dimension and one length, with a message id and a body in every place."
            }
            Self::Unreadable => {
                "Were tables of the schema pgmask changed? Compare them with pg_mask's install script."
            }
            Self::Refused(_) => "docs/sql.md explains the reasons, under \"Quarantine\".",
            Self::SetByClient(_) => {
                "Connect without it: it is among the connection's options, or in PGOPTIONS."
            }
            Self::LoadedInParallel => {
                "Call one of its functions before, such as mask_pii. Or have the DBA add pg_mask to shared_preload_libraries."
            }
            Self::Prepared => "COMMIT it in its session: others wait for what it has locked.",
            Self::Gone => "Apply the files of sql/ again if the database is to have it.",
            Self::TakenAlong => "Leave the schema out of it: ALTER EXTENSION ... DROP SCHEMA ....",
            Self::Dropped => {
                "With it would go the ledger, the quarantine, the vault and the audit. Have a superuser do that first: docs/operations.md, \"Leave pg_mask\", says how."
            }
            Self::TooManyMessages { .. } | Self::TooManyBytes { .. } => "Give less at once.",
            Self::Memory
            | Self::Seal(SealError::Memory)
            | Self::VaultValue(SealError::Memory)
            | Self::Unseal { error: SealError::Memory, .. } => {
                "Try again, with less at once if it is much, or give the server more memory."
            }
            Self::VaultValue(SealError::NewerKey(_)) | Self::Unseal { error: SealError::NewerKey(_), .. } => {
                "Rows are missing from pgmask.key_check. Call pgmask.rotate_seal_key(), which puts the newer key to use again, and find out who could delete them."
            }
            Self::VaultValue(SealError::UnknownKey(_))
            | Self::Unseal { error: SealError::UnknownKey(_), .. } => {
                "Put the keyring that has this key back from your backup of it."
            }
            Self::Unseal { .. } => {
                "Restore this row from a backup. Until it is restored or deleted, replay_quarantine() fails when it comes to it; with a reason it takes messages of that reason alone."
            }
            Self::NotInQuarantine(_) => {
                "Maybe it was taken in meanwhile. SELECT id, reason FROM pgmask.quarantine shows a superuser what there is."
            }
            Self::NotAToken => {
                "Give a token as it is stored: m1_ and 64 hexadecimal digits, for example. A SHA-256 hash can be recovered, but not forgotten."
            }
            Self::NotInVault => {
                "Values are kept as logins come in while pgmask.vault is on. One that was forgotten is not kept again."
            }
            Self::VaultValue(_) => "Restore this row of pgmask.vault from a backup.",
            Self::NoReason(_) => {
                "Write it as the second argument; it is kept in pgmask.audit and in the server's log, with your name."
            }
            Self::LongReason { .. } => "Write a short one, and name where the long one is kept.",
            Self::NotDirectly(_) => {
                "What is written to pgmask.audit is committed before anything is shown. So let the statement be just the CALL, not in a transaction block, a function, a trigger or another procedure."
            }
            Self::MayNotActAs(_) => "RESET ROLE; or ask who administers roles.",
            Self::AuditChanged => {
                "SELECT * FROM pgmask.verify_audit() says what was changed. Restore pgmask.audit and pgmask.audit_end from a backup, or keep a copy of both and empty them: then a new chain begins."
            }
            Self::NoDatabaseId => "Restore its rows from a dump of this database.",
            Self::Seal(_) => "Try again; if it happens again, look at the system's log.",
        }
    }
}

/// Where a [`Result`] of ours becomes an error of the server's.
pub(crate) trait OrRaise<T> {
    /// The value, or the end of the statement.
    fn or_raise(self) -> T;
}

impl<T> OrRaise<T> for Result<T, Error> {
    #[inline]
    fn or_raise(self) -> T {
        self.unwrap_or_else(|error| raise(&error))
    }
}

#[cold]
fn raise(error: &Error) -> ! {
    leave_room();
    ErrorReport::new(error.sqlstate(), error.to_string(), "")
        .set_hint(error.hint())
        .report(PgLogLevel::ERROR);
    unreachable!("reporting an ERROR does not return")
}

/// Has pgrx copy the message into PostgreSQL's reserve for errors: where the context at hand has no room for it, the
/// process would end. Whoever catches the error has a context of its own.
pub(crate) fn leave_room() {
    // SAFETY: the error context is there from the beginning of each process.
    unsafe { pg_sys::CurrentMemoryContext = pg_sys::ErrorContext };
}

fn part_of(part: Option<&String>) -> String {
    part.map_or_else(String::new, |part| format!("partition {part} of "))
}

fn shown_sqlstate(sqlstate: &[u8; 5]) -> String {
    String::from_utf8_lossy(sqlstate).into_owned()
}

/// What a key is there for.
fn used(which: Which) -> &'static str {
    match which {
        Which::Generation(_) => "masked",
        Which::Seal(_) => "sealed",
    }
}

/// For `_PG_init`: see `prepare_thread_locals` there. pgrx notes where a panic was, and an error is one to it.
pub(crate) fn prepare() {
    let caught = std::panic::catch_unwind(|| std::panic::panic_any(()));
    debug_assert!(caught.is_err());
}

/// Keeps backtraces out of what clients and the log are told, whatever RUST_BACKTRACE says. For `_PG_init`.
///
/// pgrx adds one to the DETAIL of every error wherever the standard library captures one. That decides
/// once in a process whether it does, from the environment: so it is made to decide here.
pub(crate) fn never_show_backtraces() {
    const SWITCH: &str = "RUST_LIB_BACKTRACE"; // counts before RUST_BACKTRACE (std::backtrace)
    let before = std::env::var_os(SWITCH);
    // SAFETY: a server process has one thread, and nothing else runs meanwhile.
    unsafe { std::env::set_var(SWITCH, "0") };
    let capture = std::backtrace::Backtrace::capture();
    debug_assert_eq!(capture.status(), std::backtrace::BacktraceStatus::Disabled);
    // SAFETY: as above.
    unsafe {
        match before {
            Some(value) => std::env::set_var(SWITCH, value),
            None => std::env::remove_var(SWITCH),
        }
    }
}

/// The keyring's path for those who may know it: superusers, also inside SECURITY DEFINER, but not in maintenance, which runs code of others.
fn shown(path: &Path) -> String {
    // SAFETY: plain look-ups of the session's own user.
    let may_know = unsafe {
        pg_sys::superuser_arg(pg_sys::GetSessionUserId()) && !pg_sys::InSecurityRestrictedOperation()
    };
    if may_know { format!(" \"{}\"", path.display()) } else { String::new() }
}
