//! Writers: each hands batches to the database over a connection of its own, and keeps at it until
//! the database has taken them in.

use crate::batch::Batches;
use crate::database::Database;
use crate::delete;
use crate::error::Error;
use crate::message::Message;
use crate::retry::Backoff;
use crate::shared::Shared;
use std::sync::Arc;
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
            delete::release(&shared, batch).await;
            return;
        }
        delete::spawn(&shared, batch);
    }
}

/// Tries until the batch is taken in; `false` if that has no end.
async fn take_in(shared: &Shared, database: &mut Option<Database>, batch: &[Message]) -> bool {
    let mut backoff = Backoff::default();
    loop {
        match try_once(shared, database, batch).await {
            Ok(()) => return true,
            Err(error) => {
                *database = None; // whatever state the connection is in, a new one has none
                if shared.ends_on(error) {
                    return false;
                }
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

async fn try_once(shared: &Shared, database: &mut Option<Database>, batch: &[Message]) -> Result<(), Error> {
    let connected = match database {
        Some(connected) => connected,
        None => database.insert(Database::open(&shared.connection).await?.0),
    };
    let counts = connected.take_in(batch).await?;
    shared.tally.taken_in(counts);
    tracing::debug!(
        messages = batch.len(),
        inserted = counts.inserted,
        duplicate = counts.duplicate,
        quarantined = counts.quarantined,
        "batch committed"
    );
    Ok(())
}
