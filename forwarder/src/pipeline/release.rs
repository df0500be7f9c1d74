//! Releasing: what could not be stored and deleted in time is made visible again, so that another forwarder
//! can have it at once. That happens at the end, when nothing here receives or renews any more.

use super::held::{HeldMessage, receipt_handles};
use super::outage::Outages;
use crate::queue::{Outcome, Queue, chunks};
use crate::telemetry::tally::Tally;
use futures_util::{StreamExt, stream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// How many calls are under way at once. On a FIFO queue one, for the sake of the order.
const CALLS: usize = 16;
/// How long releasing may take. What is left becomes visible by itself after the visibility timeout.
const PATIENCE: Duration = Duration::from_secs(5);
/// An abandoned long poll receives what has just become visible within this time.
const RECEIVED_AGAIN_WITHIN: Duration = Duration::from_millis(500);

/// What is released at the end.
pub(super) struct Releases {
    pub(super) queue: Queue,
    pub(super) outages: Arc<Outages>,
    pub(super) tally: Arc<Tally>,
    pub(super) messages: Mutex<Vec<HeldMessage>>,
    /// Receives that their receivers do not wait for any more. They add what they bring nevertheless.
    pub(super) abandoned: TaskTracker,
}

impl Releases {
    /// These messages are to be made visible again.
    pub(super) fn add(&self, messages: Vec<HeldMessage>) {
        self.messages().extend(messages);
    }

    fn messages(&self) -> MutexGuard<'_, Vec<HeldMessage>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases everything. Abandoned receives may receive what was just released, each once, so this has an
    /// end.
    pub(super) async fn run(&self) {
        self.abandoned.close();
        let calls = if self.queue.is_fifo() { 1 } else { CALLS };
        let all = async {
            loop {
                let messages = std::mem::take(&mut *self.messages());
                if messages.is_empty() {
                    return;
                }
                let messages = stream::iter(chunks(messages));
                messages.for_each_concurrent(calls, |messages| self.release(messages)).await;
                let _ = timeout(RECEIVED_AGAIN_WITHIN, self.abandoned.wait()).await;
            }
        };
        if timeout(PATIENCE, all).await.is_err() {
            tracing::warn!(
                "some messages were not made visible again; they come again after the visibility timeout"
            );
        }
    }

    async fn release(&self, messages: Vec<HeldMessage>) {
        match self.queue.change_visibility(&receipt_handles(&messages), Duration::ZERO).await {
            Ok(outcomes) => {
                let released = outcomes.iter().filter(|outcome| **outcome == Outcome::Done).count();
                self.tally.released.inc_by(released as u64);
            }
            Err(error) => self.outages.report(&error),
        }
    }
}
