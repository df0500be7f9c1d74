//! Maintenance: `pgmask.maintain()` empties what the ledger need not remember any more. Each forwarder calls it
//! at its start and every few hours; beside other forwarders it finds nothing left to do.

use super::backoff::jittered;
use super::outage::Outages;
use crate::database::Pool;
use crate::error::{End, Error};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

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
}

impl Maintenance {
    /// Calls it again and again, without an end.
    pub(super) async fn run(self) {
        loop {
            let wait = match self.call().await {
                Ok(()) => INTERVAL,
                Err(error) => {
                    self.outages.report(&error);
                    AFTER_FAILURE
                }
            };
            sleep(jittered(wait)).await;
        }
    }

    async fn call(&self) -> Result<(), Error> {
        let lease = self.pool.lease(true, |error| self.outages.report(error)).await?;
        match timeout(self.statement_timeout, lease.database.maintain()).await {
            Ok(maintained) => {
                let (slots_emptied, rows_deleted) = maintained?;
                tracing::debug!(slots_emptied, rows_deleted, "ledger maintained");
                lease.give_back();
                Ok(())
            }
            Err(_) => {
                lease.database.cancel().await;
                let text = format!("pgmask.maintain() took longer than {:?}", self.statement_timeout);
                Err(Error::transient(End::Database, text))
            }
        }
    }
}
