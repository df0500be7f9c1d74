//! Writers: each hands a batch to the database, and tries again until it is committed.

use super::batch::Batches;
use super::delete::Deletes;
use super::outage::Outages;
use super::release::Releases;
use super::shutdown::Stop;
use crate::database::{Counts, Failing, Pool};
use crate::error::{End, Error};
use crate::message::Message;
use crate::telemetry::tally::Tally;
use flow_control::Backoff;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// What a writer works with.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) pool: Arc<Pool>,
    /// How long the database may take for a batch.
    pub(super) statement_timeout: Duration,
    pub(super) batches: Arc<Mutex<Batches>>,
    pub(super) deletes: Deletes,
    pub(super) releases: Arc<Releases>,
    pub(super) outages: Arc<Outages>,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: Stop,
}

impl Writer {
    /// Writes batches until there are no more, or time is up.
    pub(super) async fn run(self) {
        loop {
            // One writer gathers while others write.
            let batch = tokio::select! {
                batch = async { self.batches.lock().await.next().await } => batch,
                () = self.stop.release_now.cancelled() => return,
            };
            let Some(batch) = batch else { return };
            let messages: Vec<&Message> = batch.iter().map(|held| &held.message).collect();
            let committed = tokio::select! {
                committed = self.commit(&messages) => committed,
                () = self.stop.release_now.cancelled() => false,
            };
            if !committed {
                return self.releases.add(batch);
            }
            self.deletes.spawn(batch);
        }
    }

    /// Tries until the batch is committed; `false` if everything ends before that.
    async fn commit(&self, batch: &[&Message]) -> bool {
        let mut backoff = Backoff::default();
        // Until the batch is committed, the pool knows that this writer fails.
        let mut failing: Option<Failing> = None;
        loop {
            let start = Instant::now();
            match self.try_once(batch, failing.is_some()).await {
                Ok(counts) => {
                    self.outages.over(End::Database);
                    self.tally.committed(&counts, batch, start.elapsed());
                    if counts.quarantined > 0 {
                        let trace = |place: &i32| {
                            batch.get(usize::try_from(*place).ok()?.checked_sub(1)?)?.trace.as_deref()
                        };
                        let traces: Vec<&str> = counts.places.iter().filter_map(trace).collect();
                        tracing::info!(
                            quarantined = counts.quarantined,
                            traces = (!traces.is_empty()).then(|| traces.join(" ")),
                            "messages went to the quarantine"
                        );
                    }
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
                    self.tally.database_error(&error);
                    failing = Some(self.pool.failing((error.kind, error.to_string())));
                    if self.outages.ends_on(error) {
                        return false;
                    }
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    /// Hands the batch in once. After an error the connection's state is not known, so it is closed. A statement
    /// that takes too long is given up: the server may be gone. If it was committed nevertheless, the next try
    /// finds duplicates.
    async fn try_once(&self, batch: &[&Message], failing: bool) -> Result<Counts, Error> {
        let tell = |error: &Error| {
            self.tally.database_error(error);
            self.outages.report(error);
        };
        let in_use = self.pool.take(failing, tell).await?;
        let database = &in_use.connection;
        let counts = database.within(self.statement_timeout, database.ingest(batch)).await?;
        in_use.give_back();
        Ok(counts)
    }
}
