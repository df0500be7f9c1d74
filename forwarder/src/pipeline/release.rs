//! Releasing: what could not be settled in time is made visible again, so that another forwarder can have
//! it at once. That happens at the end, when nothing here receives or renews any more.

use super::held::{Held, receipt_handles};
use super::outage::Outages;
use crate::queue::{Queue, Settled, chunks};
use crate::telemetry::tally::Tally;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

/// How many calls are under way at once. On a FIFO queue one, for the sake of the order.
const CALLS: usize = 16;
/// How long releasing may take. What is left becomes visible by itself after the visibility timeout.
const PATIENCE: Duration = Duration::from_secs(5);
/// A long poll that is left over takes what has become visible sooner than this.
const QUIET: Duration = Duration::from_millis(500);

/// What is released at the end.
pub(super) struct Releases {
    pub(super) queue: Queue,
    pub(super) outages: Arc<Outages>,
    pub(super) tally: Arc<Tally>,
    pub(super) messages: Mutex<Vec<Held>>,
    /// Long polls that are not waited for any more. They add what they bring nevertheless.
    pub(super) left_over: TaskTracker,
}

impl Releases {
    /// These messages can't be settled.
    pub(super) fn add(&self, messages: Vec<Held>) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).extend(messages);
    }

    fn take(&self) -> Vec<Held> {
        std::mem::take(&mut self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Releases everything. Long polls that are left over may receive what was just released, each poll
    /// once, so this has an end.
    pub(super) async fn run(self: &Arc<Self>) {
        self.left_over.close();
        let all = async {
            loop {
                let messages = self.take();
                if messages.is_empty() {
                    return;
                }
                self.release_all(messages).await;
                let _ = tokio::time::timeout(QUIET, self.left_over.wait()).await;
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            tracing::warn!(
                "some messages were not made visible again; they come again after the visibility timeout"
            );
        }
    }

    async fn release_all(self: &Arc<Self>, messages: Vec<Held>) {
        let most = if self.queue.is_fifo() { 1 } else { CALLS };
        let mut calls = JoinSet::new();
        for chunk in chunks(messages) {
            if calls.len() == most {
                calls.join_next().await;
            }
            calls.spawn(self.clone().release(chunk));
        }
        calls.join_all().await;
    }

    async fn release(self: Arc<Self>, messages: Vec<Held>) {
        match self.queue.change_visibility(&receipt_handles(&messages), Duration::ZERO).await {
            Ok(settled) => {
                let released = settled.iter().filter(|settled| **settled == Settled::Done).count();
                self.tally.released.inc_by(released as u64);
            }
            Err(error) => self.outages.report(&error),
        }
    }
}
