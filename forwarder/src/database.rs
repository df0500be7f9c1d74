//! The database: one connection, and the one function that takes messages in.
//!
//! [`pg_settings`] connects to what [`url`] and libpq's variables say. [`rehearsal`] is for
//! `forwarder check`.

mod rehearsal;
mod url;

pub(crate) use rehearsal::Rehearsal;
pub(crate) use url::DatabaseUrl;

use crate::error::{End, Error};
use crate::message::Message;
use pg_settings::{Connection, Settings};
use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

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
    /// The database can't hold every character, so messages have to come in ASCII.
    ascii_only: bool,
}

/// How long a connection may take until it is of use.
const OPEN: Duration = Duration::from_secs(30);
/// How long to try to tell the server that nobody waits any more.
const CANCEL: Duration = Duration::from_secs(5);

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
        Self::open_within(settings, OPEN).await
    }

    /// The same, with another patience.
    pub(crate) async fn open_within(
        settings: &Settings,
        patience: Duration,
    ) -> Result<(Self, Option<MayLog>), Error> {
        let silent = |_| Error::Unavailable {
            end: End::Database,
            what: format!("gave no answer within {patience:?}; if it is there, is its table locked?"),
        };
        let start = Instant::now();
        let found = async { Self::find(settings.connect().await?).await };
        let (database, may_log) = timeout(patience, found).await.map_err(silent)??;
        match timeout(patience.saturating_sub(start.elapsed()), database.take_in(&[])).await {
            Ok(tried) => tried?,
            Err(late) => {
                // Otherwise it would wait there for the lock, one more with every try.
                database.cancel().await;
                return Err(silent(late));
            }
        };
        Ok((database, may_log))
    }

    /// Finds the extension.
    pub(crate) async fn find(connection: Connection) -> Result<(Self, Option<MayLog>), Error> {
        let found = connection.client.query_typed(FIND_EXTENSION, &[]).await;
        let found = found.map_err(|error| Error::of_database(&error))?;
        let Some(row) = found.first() else {
            return Err(Error::SetUp {
                what: "the database has no extension pg_mask. Run there, as a superuser: CREATE EXTENSION pg_mask;"
                    .to_owned(),
            });
        };
        // A single statement is its own transaction, so this works behind poolers, too, and the
        // setting holds at its commit: a message is deleted only once its row is on disk.
        let call = format!(
            "SELECT inserted, duplicate, quarantined, pg_catalog.set_config('synchronous_commit', 'on', true)
             FROM {}.ingest_login_batch($1, $2, $3, $4)",
            row.try_get::<_, &str>(0).map_err(|error| Error::of_database(&error))?
        );
        let ascii_only = row.try_get(1).map_err(|error| Error::of_database(&error))?;
        let may_log: Option<String> = row.try_get(2).map_err(|error| Error::of_database(&error))?;
        Ok((Self { connection, call, ascii_only }, may_log.map(MayLog)))
    }

    /// Asks the server to give up what it is doing, so that it does not wait there for a lock, say,
    /// after nobody waits for it.
    pub(crate) async fn cancel(&self) {
        let _ = timeout(CANCEL, self.connection.cancel()).await;
    }

    /// A body as it is; or, where the database has no place for some characters, with these as JSON
    /// writes them in ASCII (RFC 8259, section 7): the same message, but for one that is no JSON.
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
    pub(crate) async fn take_in(&self, batch: &[Message]) -> Result<Counts, Error> {
        let rows = self.call(batch).await.map_err(|error| Self::refused(&error))?;
        let count = |place: usize| {
            rows.first().and_then(|row| row.try_get::<_, i64>(place).ok()).and_then(|n| u64::try_from(n).ok())
        };
        match (count(0), count(1), count(2)) {
            (Some(inserted), Some(duplicate), Some(quarantined)) => {
                Ok(Counts { inserted, duplicate, quarantined })
            }
            _ => Err(Error::Unavailable {
                end: End::Database,
                what: "gave no counts for a batch; is its pg_mask of another version?".to_owned(),
            }),
        }
    }

    async fn call(&self, batch: &[Message]) -> Result<Vec<Row>, tokio_postgres::Error> {
        let ids: Vec<&str> = batch.iter().map(|message| message.id.as_str()).collect();
        let bodies: Vec<Cow<'_, str>> = batch.iter().map(|message| self.encode(&message.body.0)).collect();
        let sent_at: Vec<Option<SystemTime>> = batch.iter().map(|message| message.sent_at).collect();
        let receive_counts: Vec<Option<i32>> = batch.iter().map(|message| message.receive_count).collect();
        // Never prepared under a name: a pooler may hand the next batch to another server process.
        let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
            (&ids, Type::TEXT_ARRAY),
            (&bodies, Type::TEXT_ARRAY),
            (&sent_at, Type::TIMESTAMPTZ_ARRAY),
            (&receive_counts, Type::INT4_ARRAY),
        ];
        self.connection.client.query_typed(&self.call, &parameters).await
    }

    /// What a refused batch means. pg_mask itself says what to do; PostgreSQL doesn't.
    fn refused(error: &tokio_postgres::Error) -> Error {
        let sorted = Error::of_database(error);
        match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => sorted
                .with_cure("Grant the role what sql/02_roles.sql grants: GRANT pgmask_ingester TO the role."),
            Some(&SqlState::UNDEFINED_FUNCTION) => {
                sorted.with_cure("Run there, as a superuser: ALTER EXTENSION pg_mask UPDATE;")
            }
            _ => sorted,
        }
    }
}
