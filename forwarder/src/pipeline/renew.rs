//! Renewing: what is in flight stays hidden from other consumers, however long the database takes.

use super::outage::Outages;
use crate::queue::{Outcome, Queue, chunks};
use flow_control::{Due, InFlight};
use futures_util::{StreamExt, stream};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many calls are under way at once.
const CALLS: usize = 16;
/// How often to look, at most and at least.
const LOOK: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);

/// What renewing works with.
pub(super) struct Renewing {
    pub(super) queue: Queue,
    pub(super) visibility_timeout: Duration,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) outages: Arc<Outages>,
}

impl Renewing {
    /// Renews the visibility timeout of everything in flight at half time, without an end.
    pub(super) async fn run(self) {
        loop {
            // Often enough to be in time after a look that came just too early, and after a failure.
            tokio::time::sleep((self.visibility_timeout / 16).clamp(*LOOK.start(), *LOOK.end())).await;
            let due = stream::iter(chunks(self.in_flight.due(Instant::now())));
            due.for_each_concurrent(CALLS, |due| self.renew(due)).await;
        }
    }

    /// What fails is still due at the next look. What is lost comes again, or is gone.
    async fn renew(&self, due: Vec<Due>) {
        let now = Instant::now();
        let handles: Vec<&str> = due.iter().map(|due| &*due.handle).collect();
        match self.queue.change_visibility(&handles, self.visibility_timeout).await {
            Ok(outcomes) => {
                for (due, outcome) in due.iter().zip(outcomes) {
                    match outcome {
                        Outcome::Done => self.in_flight.renewed(due, Some(now)),
                        Outcome::Lost => self.in_flight.renewed(due, None),
                        Outcome::Failed => {}
                    }
                }
            }
            Err(error) => self.outages.report(&error),
        }
    }
}
