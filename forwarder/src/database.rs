//! The database: one connection, and the one function that takes messages in.
//!
//! [`parameters`] are read once into what [`connection`] connects with, over [`mod@tls`] where asked for;
//! [`certificate`] tells the right server, [`pgpass`] may know the password, [`refusal`] knows what to
//! do when a server does not take us.

mod certificate;
mod connection;
mod parameters;
mod pgpass;
mod refusal;
mod tls;

pub(crate) use connection::{Connected, DatabaseUrl, Settings};
pub(crate) use tls::Protection;

use crate::error::{End, Error};
use crate::message::Message;
use std::borrow::Cow;
use std::fmt::Write;
use std::time::SystemTime;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) inserted: u64,
    pub(crate) duplicate: u64,
    pub(crate) quarantined: u64,
}

/// Whether the server might log what statements carry for this role.
pub(crate) struct WouldLog(pub(crate) bool);

/// A connection that is ready to take messages in.
pub(crate) struct Database {
    client: Client,
    call: String,
    /// The database can't hold every character, so messages have to come in ASCII.
    ascii_only: bool,
}

const FIND_EXTENSION: &str = "SELECT pg_catalog.quote_ident(n.nspname),
    pg_catalog.current_setting('server_encoding') NOT IN ('UTF8', 'SQL_ASCII'),
    pg_catalog.current_setting('log_parameter_max_length') <> '0'
        OR pg_catalog.current_setting('log_parameter_max_length_on_error') <> '0'
        OR pg_catalog.current_setting('plan_cache_mode') <> 'force_generic_plan'
    FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_mask'";

impl Database {
    /// Connects, finds the extension and tries the function with an empty batch, which tells all
    /// that can be wrong with rights, keys and the target table.
    pub(crate) async fn open(settings: &Settings) -> Result<(Self, WouldLog), Error> {
        let (database, would_log) = Self::find(settings.connect().await?.client).await?;
        database.take_in(&[]).await?;
        Ok((database, would_log))
    }

    /// Finds the extension.
    pub(crate) async fn find(client: Client) -> Result<(Self, WouldLog), Error> {
        let found =
            client.query_typed(FIND_EXTENSION, &[]).await.map_err(|error| Error::of_database(&error))?;
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
        let would_log = row.try_get(2).map_err(|error| Error::of_database(&error))?;
        Ok((Self { client, call, ascii_only }, WouldLog(would_log)))
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
        let ids: Vec<&str> = batch.iter().map(|message| message.id.as_str()).collect();
        let bodies: Vec<Cow<'_, str>> = batch.iter().map(|message| self.encode(&message.body.0)).collect();
        let sent_at: Vec<Option<SystemTime>> = batch.iter().map(|message| message.sent_at).collect();
        let receive_counts: Vec<Option<i32>> = batch.iter().map(|message| message.receive_count).collect();
        // Never prepared under a name: a pooler may hand the next batch to another server process.
        let rows = self
            .client
            .query_typed(
                &self.call,
                &[
                    (&ids, Type::TEXT_ARRAY),
                    (&bodies, Type::TEXT_ARRAY),
                    (&sent_at, Type::TIMESTAMPTZ_ARRAY),
                    (&receive_counts, Type::INT4_ARRAY),
                ],
            )
            .await
            .map_err(|error| Error::of_database(&error))?;
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
}
