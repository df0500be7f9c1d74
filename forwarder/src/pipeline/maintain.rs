//! Maintenance: `pgmask.maintain()` empties what the ledger need not remember any more. Each forwarder calls it
//! at its start and every few hours; beside other forwarders it finds nothing left to do.

use super::outage::Outages;
use crate::database::Pool;
use crate::error::Error;
use crate::telemetry::tally::Tally;
use flow_control::jittered;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// The time between two calls, at most; half of it at least.
const INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// The same after a call that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(600);

/// What maintenance works with.
pub(super) struct Maintenance {
    pub(super) pool: Arc<Pool>,
    /// How long the database may take for it.
    pub(super) statement_timeout: Duration,
    pub(super) outages: Arc<Outages>,
    pub(super) tally: Arc<Tally>,
}

impl Maintenance {
    /// Calls it again and again, without an end.
    pub(super) async fn run(self) {
        loop {
            let wait = match self.call().await {
                Ok(()) => {
                    self.tally.maintained();
                    INTERVAL
                }
                Err(error) => {
                    self.tally.maintain_failures.inc();
                    self.outages.report(&error);
                    AFTER_FAILURE
                }
            };
            sleep(jittered(wait)).await;
        }
    }

    async fn call(&self) -> Result<(), Error> {
        let in_use = self.pool.take(true, |error| self.outages.report(error)).await?;
        let database = &in_use.connection;
        let (slots_emptied, rows_deleted) =
            database.within(self.statement_timeout, database.maintain()).await?;
        tracing::debug!(slots_emptied, rows_deleted, "ledger maintained");
        in_use.give_back();
        Ok(())
    }
}
