//! Writers: each hands batches to the database over a connection of its own, and tries again until the
//! database has committed them.

use super::backoff::Backoff;
use super::batch::Batches;
use super::delete::Deletes;
use super::outage::Outages;
use super::pause::Pause;
use super::release::Releases;
use super::shutdown::Stop;
use crate::database::{Counts, Database};
use crate::error::{End, Error};
use crate::message::Message;
use crate::telemetry::tally::Tally;
use pg_settings::Settings;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// What a writer works with.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) settings: Arc<Settings>,
    /// How long the database may take for a batch.
    pub(super) statement_timeout: Duration,
    pub(super) batches: Arc<Mutex<Batches>>,
    pub(super) deletes: Deletes,
    pub(super) releases: Arc<Releases>,
    pub(super) pause: Arc<Pause>,
    pub(super) outages: Arc<Outages>,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: Stop,
}

impl Writer {
    /// Writes batches until there are no more, or time is up. Connects at the first batch unless given a
    /// connection.
    pub(super) async fn run(self, mut database: Option<Database>) {
        loop {
            // One writer gathers while others write.
            let batch = tokio::select! {
                batch = async { self.batches.lock().await.next().await } => batch,
                () = self.stop.settling.cancelled() => return,
            };
            let Some(batch) = batch else { return };
            let messages: Vec<&Message> = batch.iter().map(|held| &held.message).collect();
            let committed = tokio::select! {
                committed = self.commit(&mut database, &messages) => committed,
                () = self.stop.settling.cancelled() => false,
            };
            if !committed {
                return self.releases.add(batch);
            }
            self.deletes.spawn(batch);
        }
    }

    /// Tries until the batch is committed; `false` if everything ends before that.
    async fn commit(&self, database: &mut Option<Database>, batch: &[&Message]) -> bool {
        let mut backoff = Backoff::default();
        let mut waiting = None;
        loop {
            let start = Instant::now();
            match self.try_once(database, batch).await {
                Ok(counts) => {
                    self.outages.over(End::Database);
                    self.tally.committed(counts, batch, start.elapsed());
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
                    *database = None; // after an error, a connection's state is not known
                    self.tally.database_error(&error);
                    if self.outages.ends_on(error) {
                        return false;
                    }
                    waiting.get_or_insert_with(|| self.pause.begin());
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    /// A statement that takes too long is given up: the server may be gone. If it was committed nevertheless,
    /// the next try finds duplicates.
    async fn try_once(&self, database: &mut Option<Database>, batch: &[&Message]) -> Result<Counts, Error> {
        let connected = match database {
            Some(connected) => connected,
            None => database.insert(Database::open(&self.settings).await?.0),
        };
        match tokio::time::timeout(self.statement_timeout, connected.take_in(batch)).await {
            Ok(counts) => counts,
            Err(_) => {
                connected.cancel().await;
                let text = format!("the database gave no answer within {:?}", self.statement_timeout);
                Err(Error::transient(End::Database, text))
            }
        }
    }
}
