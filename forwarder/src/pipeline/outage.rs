//! What is done about an error while messages are carried: report it and try again, or end everything.

use super::shutdown::Stop;
use crate::error::{End, Error};
use crate::telemetry::tally::Tally;
use safe_output::Throttle;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The same text is logged again after so long.
const REPORT_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// And no more than so many texts in that time, if a server always says something else.
const MOST_REPORTED: usize = 100;
/// How long a drain waits out an outage in which nothing moves.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

/// The errors of everything that carries messages.
pub(super) struct Outages {
    drain: bool,
    stop: Stop,
    tally: Arc<Tally>,
    throttle: Throttle,
    seen: Mutex<Seen>,
}

/// What was seen of errors so far.
#[derive(Default)]
struct Seen {
    outages: HashMap<End, Outage>,
    /// The error that ended everything.
    fatal: Option<Error>,
}

/// An end is out, or something else does not succeed.
pub(super) struct Outage {
    /// Since when, or since when nothing has moved.
    since: Instant,
    /// What [`Tally::moved`] said then.
    moved: u64,
}

impl Outage {
    /// One that has just begun.
    fn new(moved: u64) -> Self {
        Self { since: Instant::now(), moved }
    }

    /// Whether it lasts, and nothing has moved, for longer than a drain waits.
    fn lasts(&mut self, moved: u64) -> bool {
        if self.moved != moved {
            *self = Self::new(moved);
        }
        self.since.elapsed() > DRAIN_PATIENCE
    }
}

impl Outages {
    pub(super) fn new(drain: bool, stop: Stop, tally: Arc<Tally>) -> Self {
        let throttle = Throttle::new(REPORT_AGAIN_AFTER, MOST_REPORTED);
        Self { drain, stop, tally, throttle, seen: Mutex::default() }
    }

    /// Takes note of an error. `false`: wait and try again. `true`: it ended everything, which only a drain
    /// does, when somebody has to set something right or an outage lasts.
    pub(super) fn ends_on(&self, error: Error) -> bool {
        self.report(&error);
        let lasts = || error.end.is_some_and(|end| self.lasts(end));
        if !self.drain || (error.kind.may_pass() && !lasts()) {
            return false;
        }
        self.end_with(error);
        true
    }

    /// Takes note of calls that an end answers, and which do not succeed nevertheless. `true`: they have not for so long
    /// that a drain ends, with this error.
    pub(super) fn ends_on_failures(&self, failures: &mut Option<Outage>, text: &str) -> bool {
        let moved = self.tally.moved();
        let lasts = failures.get_or_insert_with(|| Outage::new(moved)).lasts(moved);
        if self.drain && lasts {
            self.end_with(Error::transient(End::Queue, format!("{text} for a minute")));
        }
        self.drain && lasts
    }

    /// Logs an error that is waited out, unless the same was logged within the last minute.
    pub(super) fn report(&self, error: &Error) {
        let text = error.to_string();
        if !self.throttle.lets_through(&text) {
            return;
        }
        if error.kind.may_pass() {
            tracing::warn!("{text}; trying again");
        } else {
            tracing::error!("{text} (trying again; this needs somebody to set it right)");
        }
    }

    /// Logs a warning, unless the same was logged within the last minute.
    pub(super) fn warn(&self, text: &str) {
        if self.throttle.lets_through(text) {
            tracing::warn!("{text}");
        }
    }

    /// Everything ends because of this error. The first one counts.
    pub(super) fn ended_by(&self, error: Error) {
        self.seen().fatal.get_or_insert(error);
    }

    /// Ends everything at once; what is in flight is made visible again.
    pub(super) fn end_with(&self, error: Error) {
        self.ended_by(error);
        self.stop.stop_receiving.cancel();
        self.stop.release_now.cancel();
    }

    /// Runs a task. A panic in it, or in what it calls, is a defect that ends everything.
    pub(super) fn watched<T>(self: Arc<Self>, task: impl Future<Output = T>) -> impl Future<Output = T> {
        // In a box: a future that has another in it takes the memory of both.
        let task = Box::pin(task);
        async move {
            let _watch = Watch(self);
            task.await
        }
    }

    /// Whether an end has been out, and nothing has moved, for longer than a drain waits.
    fn lasts(&self, end: End) -> bool {
        let moved = self.tally.moved();
        self.seen().outages.entry(end).or_insert_with(|| Outage::new(moved)).lasts(moved)
    }

    /// An end has done what it was asked for: its outage is over.
    pub(super) fn over(&self, end: End) {
        self.seen().outages.remove(&end);
    }

    /// The error that ended everything, if one did.
    pub(super) fn take_fatal(&self) -> Option<Error> {
        self.seen().fatal.take()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a watched task holds.
struct Watch(Arc<Outages>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end_with(Error::panicked());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// A panic in the task that renews was not noticed: messages came again while they were held.
    #[tokio::test]
    async fn a_panic_in_a_watched_task_ends_everything_as_a_defect() {
        let stop = Stop::default();
        let outages = Arc::new(Outages::new(false, stop.clone(), Arc::new(Tally::new())));
        tokio::spawn(outages.clone().watched(async {})).await.unwrap();
        assert!(!stop.stop_receiving.is_cancelled() && outages.take_fatal().is_none());
        let task = async {
            tokio::task::yield_now().await;
            panic!("on purpose");
        };
        tokio::spawn(outages.clone().watched(task)).await.unwrap_err();
        assert!(stop.stop_receiving.is_cancelled() && stop.release_now.is_cancelled());
        assert_eq!(outages.take_fatal().map(|error| error.kind), Some(Kind::Defect));
    }
}
