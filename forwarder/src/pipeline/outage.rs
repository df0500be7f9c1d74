//! What is done about an error while messages are carried: report it and try again, or end everything.

use super::shutdown::Stop;
use crate::error::{End, Error};
use crate::telemetry::tally::Tally;
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
    /// Which texts were logged when.
    reported: Mutex<HashMap<String, Instant>>,
    /// Since when each end has been out, and what the tally said then.
    since: Mutex<HashMap<End, (Instant, u64)>>,
    /// The error that ended everything.
    fatal: Mutex<Option<Error>>,
}

impl Outages {
    pub(super) fn new(drain: bool, stop: Stop, tally: Arc<Tally>) -> Self {
        let (reported, since, fatal) = Default::default();
        Self { drain, stop, tally, reported, since, fatal }
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

    /// Logs an error that is waited out, unless the same was logged within the last minute.
    pub(super) fn report(&self, error: &Error) {
        let text = error.to_string();
        if !self.is_new(&text) {
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
        if self.is_new(text) {
            tracing::warn!("{text}");
        }
    }

    fn is_new(&self, text: &str) -> bool {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.retain(|_, at| at.elapsed() < REPORT_AGAIN_AFTER);
        let is_new = reported.len() < MOST_REPORTED && !reported.contains_key(text);
        if is_new {
            reported.insert(text.to_owned(), Instant::now());
        }
        is_new
    }

    /// Everything ends because of this error. The first one counts.
    pub(super) fn ended_by(&self, error: Error) {
        self.fatal().get_or_insert(error);
    }

    /// Ends everything at once; what is in flight is made visible again.
    pub(super) fn end_with(&self, error: Error) {
        self.ended_by(error);
        self.stop.receiving.cancel();
        self.stop.settling.cancel();
    }

    /// Whether an end has been out, and nothing has moved, for longer than a drain waits.
    fn lasts(&self, end: End) -> bool {
        let (now, moved) = (Instant::now(), self.tally.moved());
        let mut since = self.since();
        let out = since.entry(end).or_insert((now, moved));
        if out.1 != moved {
            *out = (now, moved);
        }
        now - out.0 > DRAIN_PATIENCE
    }

    /// An end has done what it was asked for: its outage is over.
    pub(super) fn over(&self, end: End) {
        self.since().remove(&end);
    }

    /// The error that ended everything, if one did.
    pub(super) fn take_fatal(&self) -> Option<Error> {
        self.fatal().take()
    }

    fn since(&self) -> MutexGuard<'_, HashMap<End, (Instant, u64)>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fatal(&self) -> MutexGuard<'_, Option<Error>> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
