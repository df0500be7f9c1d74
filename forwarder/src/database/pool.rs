//! The connections that writers share. A batch whose writer can't open a connection is written over one that
//! works: the database is out only when no connection works.

use super::connection::Database;
use crate::error::{End, Error, Kind};
use connection_pool::Manager;
use pg_settings::Settings;
use std::sync::Arc;
use std::time::Duration;

/// The connections.
pub(crate) type Pool = connection_pool::Pool<Opener>;
/// A writer whose last attempt failed, until this is dropped.
pub(crate) type Failing = connection_pool::Failing<Opener>;

/// Opens connections with these settings.
pub(crate) struct Opener(pub(crate) Settings);

impl Manager for Opener {
    type Connection = Database;
    type Error = Error;
    /// Kind and text of the error of an attempt.
    type Reason = (Kind, String);

    async fn open(&self) -> Result<Database, Error> {
        Database::open(&self.0).await.map(|(database, _)| database)
    }

    fn is_closed(database: &Database) -> bool {
        database.is_closed()
    }
}

/// Whether batches are taken in: what writers found, else tried with an empty one.
pub(crate) async fn try_out(pool: &Arc<Pool>, patience: Duration) -> Result<(), Error> {
    let now = pool.snapshot();
    let counts = |(kind, _): &(Kind, String)| *kind == Kind::SetUp || !now.works;
    if let Some((kind, text)) = now.failing.into_iter().find(counts) {
        return Err(Error::new(kind, Some(End::Database), text));
    }
    let in_use = match tokio::time::timeout(patience, pool.take(false, |_| ())).await {
        Ok(in_use) => in_use?,
        Err(_) if now.in_good_use => return Ok(()),
        Err(_) => return Err(Error::silent_database(&pool.manager().0.servers(), patience)),
    };
    let database = &in_use.connection;
    database.within(patience, database.ingest(&[])).await?;
    in_use.give_back();
    Ok(())
}
