//! Writers: each hands batches to the database over a connection of its own, and keeps at it until
//! the database has taken them in.

use super::batch::Batches;
use super::delete;
use super::retry::Backoff;
use super::shared::Shared;
use crate::database::{Counts, Database};
use crate::error::{End, Error};
use crate::message::Message;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;

/// Writes batches until there are no more, or time is up.
pub(crate) async fn run(shared: Arc<Shared>, batches: Arc<Mutex<Batches>>, mut database: Option<Database>) {
    loop {
        // One writer gathers while others write.
        let batch = tokio::select! {
            batch = async { batches.lock().await.next().await } => batch,
            () = shared.stop.settling.cancelled() => return,
        };
        let Some(batch) = batch else { return };
        let taken_in = tokio::select! {
            taken_in = take_in(&shared, &mut database, &batch) => taken_in,
            () = shared.stop.settling.cancelled() => false,
        };
        if !taken_in {
            return shared.give_back(batch);
        }
        delete::spawn(&shared, batch);
    }
}

/// Tries until the batch is taken in; `false` if that has no end.
async fn take_in(shared: &Shared, database: &mut Option<Database>, batch: &[Message]) -> bool {
    let mut backoff = Backoff::default();
    let mut out = None;
    loop {
        let start = Instant::now();
        match try_once(shared, database, batch).await {
            Ok(counts) => {
                shared.works(End::Database);
                shared.tally.taken_in(counts, start.elapsed(), batch);
                tracing::debug!(
                    messages = batch.len(),
                    inserted = counts.inserted,
                    duplicate = counts.duplicate,
                    quarantined = counts.quarantined,
                    "batch committed"
                );
                return true;
            }
            Err(error) => {
                *database = None; // whatever state the connection is in, a new one has none
                shared.tally.database_error(&error);
                if shared.ends_on(error) {
                    return false;
                }
                // What is received now would only wait here.
                out.get_or_insert_with(|| shared.database_is_out());
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

/// A statement that takes too long is not waited for: nobody may be there any more. If it was
/// committed nevertheless, the next try finds duplicates.
async fn try_once(
    shared: &Shared,
    database: &mut Option<Database>,
    batch: &[Message],
) -> Result<Counts, Error> {
    let connected = match database {
        Some(connected) => connected,
        None => database.insert(Database::open(&shared.connection).await?.0),
    };
    match tokio::time::timeout(shared.statement_timeout, connected.take_in(batch)).await {
        Ok(counts) => counts,
        Err(_) => {
            connected.cancel().await;
            let what = format!("gave no answer within {:?}", shared.statement_timeout);
            Err(Error::Unavailable { end: End::Database, what })
        }
    }
}
