//! Deleting: a message leaves the queue once the commit that stores it is durable.

use super::backoff::Backoff;
use super::held::{Held, receipt_handles};
use super::outage::Outages;
use super::release::Releases;
use super::shutdown::Stop;
use crate::queue::{Queue, Settled, chunks};
use crate::telemetry::progress::Progress;
use crate::telemetry::tally::Tally;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// How many deletes may be under way at once.
pub(super) const CALLS: usize = 64;

/// What deleting works with.
#[derive(Clone)]
pub(super) struct Deletes {
    pub(super) queue: Queue,
    pub(super) calls: Arc<Semaphore>,
    pub(super) under_way: TaskTracker,
    pub(super) releases: Arc<Releases>,
    pub(super) outages: Arc<Outages>,
    pub(super) progress: Progress,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: Stop,
}

impl Deletes {
    /// Deletes a committed batch, in chunks of ten, all at once and in the background.
    pub(super) fn spawn(&self, batch: Vec<Held>) {
        for chunk in chunks(batch) {
            self.under_way.spawn(self.clone().delete(chunk));
        }
    }

    /// Waits until all that was spawned has ended.
    pub(super) async fn ended(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }

    /// Tries until all are gone, or time is up. A message that can't be deleted comes again, as a duplicate.
    async fn delete(self, mut messages: Vec<Held>) {
        let settling = &self.stop.settling;
        let mut backoff = Backoff::default();
        while !messages.is_empty() {
            if settling.run_until_cancelled(self.try_once(&mut messages)).await != Some(true) {
                return self.releases.add(messages);
            }
            if !messages.is_empty() {
                settling.run_until_cancelled(tokio::time::sleep(backoff.next())).await;
            }
        }
    }

    /// Keeps those that are worth trying again; `false` when everything ends.
    async fn try_once(&self, messages: &mut Vec<Held>) -> bool {
        let deleted = {
            let _permit = self.calls.acquire().await;
            // In a box: the future of an SDK call is large, and many more wait for a permit than have one.
            Box::pin(self.queue.delete(&receipt_handles(messages))).await
        };
        let settled = match deleted {
            Ok(settled) => settled,
            Err(error) => {
                self.tally.delete_failures.inc_by(messages.len() as u64);
                return !self.outages.ends_on(error);
            }
        };
        let count = |wanted| settled.iter().filter(|settled| **settled == wanted).count();
        let (deleted, failed, lost) = (count(Settled::Done), count(Settled::Failed), count(Settled::Lost));
        self.tally.deleted.inc_by(deleted as u64);
        self.progress.done(deleted);
        self.tally.delete_failures.inc_by((failed + lost) as u64);
        if failed > 0 {
            self.outages.warn("the queue did not delete some messages; trying again");
        }
        if lost > 0 {
            self.outages.warn(
                "the queue did not delete some messages: their receipt handles have expired; they come again as duplicates",
            );
        }
        let mut settled = settled.into_iter();
        messages.retain(|_| settled.next() == Some(Settled::Failed));
        true
    }
}
