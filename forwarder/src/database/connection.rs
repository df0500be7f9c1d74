//! A connection to the database, and the one function that takes messages in.

use super::refusal::{self, At};
use crate::config::DatabaseUrl;
use crate::error::{End, Error, Kind};
use crate::message::Message;
use pg_settings::{Connection, Settings};
use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

/// What became of a batch.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) inserted: u64,
    pub(crate) duplicate: u64,
    pub(crate) quarantined: u64,
    /// Which messages of the batch are quarantined, from 1; of many, the first.
    pub(crate) places: Vec<i32>,
}

/// A connection that is ready to take messages in.
pub(crate) struct Database {
    connection: Connection,
    /// The database can't hold every character, so messages have to come in ASCII.
    ascii_only: bool,
}

/// How long a connection may take until it is of use.
const OPEN: Duration = Duration::from_secs(30);
/// How long cancelling a statement may take.
const CANCEL: Duration = Duration::from_secs(5);

const FIND_EXTENSION: &str = include_str!("find_extension.sql");

/// Takes a batch in. A single statement is its own transaction, so this works behind poolers, too, and the
/// setting holds at its commit: a message is deleted only once its row is on disk. Bodies are handed over only if the
/// schema is the extension's, since who owns the database may have dropped that and made another of the name. As they
/// depend on a row of the subquery, that is known before the function is called.
const INGEST: &str = include_str!("ingest.sql");

impl Database {
    /// Connects, finds the extension and tries the function with an empty batch, which tells all
    /// that can be wrong with rights, keys and the target table. Fails within [`OPEN`]: a network that
    /// is silent is an outage, and so is a table that somebody has locked. Also returns what to say if the
    /// server may log messages.
    pub(crate) async fn open(settings: &Settings) -> Result<(Self, Option<String>), Error> {
        let start = Instant::now();
        let found = async { Self::find(settings.connect().await?).await };
        let silent = |_| Error::silent_database(&settings.servers(), OPEN);
        let (database, may_log) = timeout(OPEN, found).await.map_err(silent)??;
        database.within(OPEN.saturating_sub(start.elapsed()), database.ingest(&[])).await?;
        Ok((database, may_log))
    }

    /// What else the server can be asked with.
    pub(crate) fn client(&self) -> &Client {
        &self.connection.client
    }

    /// The server's name and port.
    pub(crate) fn server(&self) -> &str {
        &self.connection.server
    }

    /// Whether the connection has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.connection.client.is_closed()
    }

    /// Finds the extension.
    pub(crate) async fn find(connection: Connection) -> Result<(Self, Option<String>), Error> {
        let server = &connection.server;
        let found = connection.client.query_typed(FIND_EXTENSION, &[]).await.at(server)?;
        let Some(row) = found.first() else {
            let text = format!("the database at {server} has no extension pg_mask");
            return Err(Error::new(Kind::SetUp, Some(End::Database), text)
                .with_hint("Run there, as a superuser: CREATE EXTENSION pg_mask;"));
        };
        let ascii_only = row.try_get(0).at(server)?;
        let settings: Option<&str> = row.try_get(1).at(server)?;
        let may_log = settings.map(|settings| {
            format!("the server may log the messages that this role's statements carry. Run there, as a superuser: {settings}")
        });
        Ok((Self { connection, ascii_only }, may_log))
    }

    /// Waits for a statement, or gives it up: the server is asked to cancel it, since it would go on waiting
    /// there, for a lock perhaps.
    pub(crate) async fn within<T>(
        &self,
        time: Duration,
        statement: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match timeout(time, statement).await {
            Ok(result) => result,
            Err(_) => {
                let _ = timeout(CANCEL, self.connection.cancel()).await;
                Err(Error::silent_database(self.server(), time))
            }
        }
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

    /// Has the database take a batch in. When this returns, what became of it is durable: the driver gives
    /// the answer after the server's ReadyForQuery, which follows the commit.
    pub(crate) async fn ingest(&self, batch: &[&Message]) -> Result<Counts, Error> {
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
        let function = if texts.is_some() { "ingest_login_batch" } else { "ingest_login_batch_bytes" };
        let statement = INGEST.replace("FUNCTION", function);
        let rows = self.client().query_typed(&statement, &parameters).await.map_err(|error| {
            match self.connection.given_up() {
                Some(reason) => reason.into(),
                None => refusal::of_a_batch(error, self.server()),
            }
        })?;
        let count = |place| rows.first()?.try_get::<_, i64>(place).ok()?.try_into().ok();
        let counts = || {
            let [inserted, duplicate, quarantined] = [count(0)?, count(1)?, count(2)?];
            let places = rows.first()?.try_get(3).ok()?;
            Some(Counts { inserted, duplicate, quarantined, places })
        };
        // Messages are deleted because of these counts, so they have to account for each.
        let all = |of: &Counts| [of.inserted, of.duplicate, of.quarantined].map(u128::from).iter().sum();
        let counts = counts().filter(|counts| batch.len() as u128 == all(counts));
        let server = self.server();
        counts.ok_or_else(|| {
            refusal::no_answer(&format!("the database at {server} gave no counts that account for a batch"))
        })
    }

    /// Empties what the ledger need not remember: how many slots, and how many rows besides.
    pub(crate) async fn maintain(&self) -> Result<(i32, i64), Error> {
        let sql = "SELECT slots_emptied, rows_deleted FROM pgmask.maintain()";
        let server = self.server();
        let rows = self.client().query_typed(sql, &[]).await.at(server)?;
        let row = rows
            .first()
            .ok_or_else(|| refusal::no_answer(&format!("pgmask.maintain() gave no answer at {server}")))?;
        Ok((row.try_get(0).at(server)?, row.try_get(1).at(server)?))
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
