//! Deleting: a message leaves the queue once the commit that stores it is durable.

use super::held::{HeldMessage, receipt_handles};
use super::outage::{Outage, Outages};
use super::release::Releases;
use super::shutdown::Stop;
use crate::queue::{Outcome, Queue, chunks};
use crate::telemetry::tally::Tally;
use flow_control::Backoff;
use safe_output::Progress;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// How many deletes may be under way at once.
pub(super) const CALLS: usize = 64;

const NOT_DELETED: &str = "the queue did not delete some messages";

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
    pub(super) fn spawn(&self, batch: Vec<HeldMessage>) {
        for chunk in chunks(batch) {
            self.under_way.spawn(self.outages.clone().watched(self.clone().delete(chunk)));
        }
    }

    /// Waits until all that was spawned has ended.
    pub(super) async fn ended(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }

    /// Tries until all are gone, or time is up. A message that can't be deleted comes again, as a duplicate.
    async fn delete(self, mut messages: Vec<HeldMessage>) {
        let release_now = &self.stop.release_now;
        let mut backoff = Backoff::default();
        let mut failures = None;
        while !messages.is_empty() {
            let tried = self.try_once(&mut messages, &mut failures);
            if release_now.run_until_cancelled(tried).await != Some(true) {
                return self.releases.add(messages);
            }
            if !messages.is_empty() {
                release_now.run_until_cancelled(tokio::time::sleep(backoff.next_wait())).await;
            }
        }
    }

    /// Tries once. Those that failed and are worth trying again stay in `messages`. `false` if an error has
    /// ended everything.
    async fn try_once(&self, messages: &mut Vec<HeldMessage>, failures: &mut Option<Outage>) -> bool {
        let deleted = {
            let _permit = self.calls.acquire().await;
            // The future of an SDK call is large, and many more deletes wait for a permit than have one: in a
            // box, only those that have one take its memory.
            Box::pin(self.queue.delete(&receipt_handles(messages))).await
        };
        let outcomes = match deleted {
            Ok(outcomes) => outcomes,
            Err(error) => {
                self.tally.delete_failures.inc_by(messages.len() as u64);
                return !self.outages.ends_on(error);
            }
        };
        let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
        let (deleted, failed, lost) = (count(Outcome::Done), count(Outcome::Failed), count(Outcome::Lost));
        self.tally.deleted.inc_by(deleted as u64);
        self.progress.done(deleted);
        self.tally.delete_failures.inc_by((failed + lost) as u64);
        if failed > 0 {
            self.outages.warn(&format!("{NOT_DELETED}; trying again"));
        }
        if lost > 0 {
            self.outages.warn(
                "the queue did not delete some messages: their receipt handles have expired; they come again as duplicates",
            );
        }
        let mut outcomes = outcomes.into_iter();
        messages.retain(|_| outcomes.next() == Some(Outcome::Failed));
        messages.is_empty() || !self.outages.ends_on_failures(failures, NOT_DELETED)
    }
}
