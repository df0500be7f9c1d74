//! A connection to the database, and the one function that takes messages in.

use crate::config::DatabaseUrl;
use crate::error::{End, Error, Kind};
use crate::message::Message;
use pg_settings::{Connection, Settings};
use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) inserted: u64,
    pub(crate) duplicate: u64,
    pub(crate) quarantined: u64,
}

/// What to set so that the server can't log the messages that this role's statements carry.
pub(crate) struct MayLog(String);

impl std::fmt::Display for MayLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the server may log the messages that this role's statements carry. Run there, as a superuser: {}",
            self.0
        )
    }
}

/// A connection that is ready to take messages in.
pub(crate) struct Database {
    connection: Connection,
    call: String,
    /// The same, for bodies as bytes.
    call_with_bytes: String,
    /// The database can't hold every character, so messages have to come in ASCII.
    ascii_only: bool,
}

/// How long a connection may take until it is of use.
const OPEN: Duration = Duration::from_secs(30);
/// How long cancelling a statement may take.
const CANCEL: Duration = Duration::from_secs(5);

const OTHER_VERSION: &str = "Run there, as a superuser: ALTER EXTENSION pg_mask UPDATE;";

const FIND_EXTENSION: &str = "SELECT 'pgmask'::pg_catalog.text,
    pg_catalog.current_setting('server_encoding') NOT IN ('UTF8', 'SQL_ASCII'),
    (SELECT pg_catalog.string_agg(pg_catalog.format('ALTER ROLE %I SET %s = %s;', current_user, setting, safe), ' ')
        FROM (VALUES ('log_parameter_max_length', '0'), ('log_parameter_max_length_on_error', '0'),
            ('plan_cache_mode', 'force_generic_plan')) AS settings(setting, safe)
        WHERE pg_catalog.current_setting(setting) <> safe)
    FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_mask'";

impl Database {
    /// Connects, finds the extension and tries the function with an empty batch, which tells all
    /// that can be wrong with rights, keys and the target table. Fails within [`OPEN`]: a network that
    /// is silent is an outage, and so is a table that somebody has locked.
    pub(crate) async fn open(settings: &Settings) -> Result<(Self, Option<MayLog>), Error> {
        let start = Instant::now();
        let found = async { Self::find(settings.connect().await?).await };
        let (database, may_log) = timeout(OPEN, found).await.map_err(|_| silent())??;
        match timeout(OPEN.saturating_sub(start.elapsed()), database.take_in(&[])).await {
            Ok(tried) => tried?,
            Err(_) => {
                // Otherwise it would wait there for the lock, one more with every try.
                database.cancel().await;
                return Err(silent());
            }
        };
        Ok((database, may_log))
    }

    /// What else the server can be asked with.
    pub(crate) fn client(&self) -> &Client {
        &self.connection.client
    }

    /// Whether the connection has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.connection.client.is_closed()
    }

    /// Finds the extension.
    pub(crate) async fn find(connection: Connection) -> Result<(Self, Option<MayLog>), Error> {
        let found = connection.client.query_typed(FIND_EXTENSION, &[]).await?;
        let Some(row) = found.first() else {
            let text = "the database has no extension pg_mask";
            return Err(Error::new(Kind::SetUp, Some(End::Database), text)
                .with_hint("Run there, as a superuser: CREATE EXTENSION pg_mask;"));
        };
        // A single statement is its own transaction, so this works behind poolers, too, and the
        // setting holds at its commit: a message is deleted only once its row is on disk.
        let schema: &str = row.try_get(0)?;
        let [call, call_with_bytes] = ["ingest_login_batch", "ingest_login_batch_bytes"].map(|function| {
            format!(
                "SELECT inserted, duplicate, quarantined, pg_catalog.set_config('synchronous_commit', 'on', true)
                 FROM {schema}.{function}($1, $2, $3, $4)"
            )
        });
        let ascii_only = row.try_get(1)?;
        let may_log: Option<String> = row.try_get(2)?;
        Ok((Self { connection, call, call_with_bytes, ascii_only }, may_log.map(MayLog)))
    }

    /// Asks the server to give up the statement under way, which otherwise would go on waiting there for a
    /// lock.
    pub(crate) async fn cancel(&self) {
        let _ = timeout(CANCEL, self.connection.cancel()).await;
    }

    /// A body as it is. For a database whose encoding lacks some characters, these are written as JSON has
    /// them in ASCII (RFC 8259, section 7), which is the same JSON text.
    fn encode<'a>(&self, body: &'a str) -> Cow<'a, str> {
        if !self.ascii_only || body.is_ascii() {
            return Cow::Borrowed(body);
        }
        let mut ascii = String::with_capacity(body.len() * 2);
        for character in body.chars() {
            if character.is_ascii() {
                ascii.push(character);
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(ascii, "\\u{unit:04x}");
                }
            }
        }
        Cow::Owned(ascii)
    }

    /// Takes a batch in. When this returns, what became of it is durable.
    pub(crate) async fn take_in(&self, batch: &[&Message]) -> Result<Counts, Error> {
        let rows = self.call(batch).await?;
        let count = |place| rows.first()?.try_get::<_, i64>(place).ok()?.try_into().ok();
        let counts = || Some(Counts { inserted: count(0)?, duplicate: count(1)?, quarantined: count(2)? });
        counts().ok_or_else(|| {
            let text = "the database gave no counts for a batch";
            Error::new(Kind::SetUp, Some(End::Database), text).with_hint(OTHER_VERSION)
        })
    }

    /// Empties what the ledger need not remember: how many slots, and how many rows besides.
    pub(crate) async fn maintain(&self) -> Result<(i32, i64), Error> {
        let sql = "SELECT slots_emptied, rows_deleted FROM pgmask.maintain()";
        let rows = self.client().query_typed(sql, &[]).await?;
        let row = rows.first().ok_or_else(|| {
            let text = "pgmask.maintain() gave no answer";
            Error::new(Kind::SetUp, Some(End::Database), text).with_hint(OTHER_VERSION)
        })?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    /// The function's answer to a batch.
    pub(crate) async fn call(&self, batch: &[&Message]) -> Result<Vec<Row>, Error> {
        let ids: Vec<&str> = batch.iter().map(|message| message.id.as_str()).collect();
        // One body that no text of PostgreSQL's can be would have the server refuse all of them.
        let texts: Option<Vec<&str>> = batch.iter().map(|message| message.body.as_text()).collect();
        let bodies: Vec<Cow<'_, str>> = texts.iter().flatten().map(|body| self.encode(body)).collect();
        let bytes: Vec<&[u8]> = match texts {
            Some(_) => Vec::new(),
            None => batch.iter().map(|message| message.body.0.as_slice()).collect(),
        };
        let sent_at: Vec<Option<SystemTime>> = batch.iter().map(|message| message.sent_at).collect();
        let receive_counts: Vec<Option<i32>> = batch.iter().map(|message| message.receive_count).collect();
        // Never prepared under a name: a pooler may hand the next batch to another server process.
        let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
            (&ids, Type::TEXT_ARRAY),
            if texts.is_some() { (&bodies, Type::TEXT_ARRAY) } else { (&bytes, Type::BYTEA_ARRAY) },
            (&sent_at, Type::TIMESTAMPTZ_ARRAY),
            (&receive_counts, Type::INT4_ARRAY),
        ];
        let call = if texts.is_some() { &self.call } else { &self.call_with_bytes };
        self.connection.client.query_typed(call, &parameters).await.map_err(|error| {
            if let Some(reason) = self.connection.given_up() {
                return reason.into();
            }
            // pg_mask says what to do about its own errors; these are PostgreSQL's.
            let hint = match error.code() {
                Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    "Grant the role what sql/02_rights.sql grants: GRANT pgmask_ingester TO the role."
                }
                Some(&SqlState::UNDEFINED_FUNCTION) => OTHER_VERSION,
                _ => return error.into(),
            };
            Error::from(error).with_hint(hint)
        })
    }
}

/// What counts where nothing else is said. Batches go to a primary: a standby that was one is found out
/// when the forwarder connects, not by the next batch. A server that is gone without a word is given up
/// after 30 s, idle or in the midst of a statement.
const DEFAULTS: [(&str, &str); 7] = [
    ("fallback_application_name", "pg_mask forwarder"),
    ("target_session_attrs", "read-write"),
    ("connect_timeout", "10"),
    ("keepalives_idle", "15"),
    ("keepalives_interval", "5"),
    ("keepalives_count", "3"),
    ("tcp_user_timeout", "30000"),
];

/// Reads where and as whom to connect. Nothing is connected yet.
pub(crate) fn settings(given: &DatabaseUrl) -> Result<Settings, Error> {
    let url = given.database_url.as_deref().filter(|url| !url.is_empty());
    let settings = Settings::read(url, &DEFAULTS, |name| std::env::var_os(name))?;
    let has_password = |url| Settings::read(Some(url), &[], |_| None).is_ok_and(|url| url.has_password());
    if given.is_argument && url.is_some_and(has_password) {
        tracing::warn!(
            "the process list shows the password in --database-url; give it in PGPASSWORD, DATABASE_URL or ~/.pgpass"
        );
    }
    Ok(settings)
}

fn silent() -> Error {
    let text = format!("the database gave no answer within {OPEN:?}; if it is there, is its table locked?");
    Error::transient(End::Database, text)
}
