//! Renewing: what is in flight stays hidden from other consumers, however long the database takes.

use super::outage::Outages;
use crate::in_flight::{Due, InFlight};
use crate::queue::{Queue, Settled, chunks};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many calls are under way at once.
const CALLS: usize = 16;
/// How often to look, at most and at least.
const LOOK: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);

/// What renewing works with.
#[derive(Clone)]
pub(super) struct Renewing {
    pub(super) queue: Queue,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) outages: Arc<Outages>,
}

impl Renewing {
    /// Renews the visibility timeout of everything in flight at half time, without an end.
    pub(super) async fn run(self) {
        let hidden = self.queue.visibility_timeout();
        loop {
            // Often enough to be in time after a look that came just too early, and after a failure.
            tokio::time::sleep((hidden / 16).clamp(*LOOK.start(), *LOOK.end())).await;
            let mut calls = JoinSet::new();
            for chunk in chunks(self.in_flight.due(Instant::now(), hidden)) {
                if calls.len() == CALLS {
                    calls.join_next().await;
                }
                calls.spawn(self.clone().renew(chunk, hidden));
            }
            calls.join_all().await;
        }
    }

    /// What fails is still due at the next look.
    async fn renew(self, due: Vec<Due>, hidden: Duration) {
        let now = Instant::now();
        let handles: Vec<&str> = due.iter().map(|due| &*due.receipt_handle).collect();
        match self.queue.change_visibility(&handles, hidden).await {
            Ok(settled) => {
                let those = |wanted| {
                    let of_kind = due.iter().zip(&settled).filter(move |(_, settled)| **settled == wanted);
                    of_kind.map(|(due, _)| due)
                };
                self.in_flight.renewed(those(Settled::Done), now, hidden);
                self.in_flight.lost(those(Settled::Lost));
            }
            Err(error) => self.outages.report(&error),
        }
    }
}
