//! What was done: counted as it happens, printed at the end.

use crate::database::Counts;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Counters that every part of the pipeline adds to.
#[derive(Debug)]
pub(crate) struct Tally {
    started: Instant,
    received: AtomicU64,
    inserted: AtomicU64,
    duplicate: AtomicU64,
    quarantined: AtomicU64,
    deleted: AtomicU64,
    released: AtomicU64,
}

/// The one line that the forwarder prints on stdout.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Summary {
    received: u64,
    inserted: u64,
    duplicate: u64,
    quarantined: u64,
    deleted: u64,
    released: u64,
    seconds: f64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            received: AtomicU64::default(),
            inserted: AtomicU64::default(),
            duplicate: AtomicU64::default(),
            quarantined: AtomicU64::default(),
            deleted: AtomicU64::default(),
            released: AtomicU64::default(),
        }
    }

    pub(crate) fn received(&self, messages: usize) {
        self.received.fetch_add(messages as u64, Relaxed);
    }

    pub(crate) fn taken_in(&self, counts: Counts) {
        self.inserted.fetch_add(counts.inserted, Relaxed);
        self.duplicate.fetch_add(counts.duplicate, Relaxed);
        self.quarantined.fetch_add(counts.quarantined, Relaxed);
    }

    pub(crate) fn deleted(&self, messages: usize) {
        self.deleted.fetch_add(messages as u64, Relaxed);
    }

    pub(crate) fn released(&self, messages: usize) {
        self.released.fetch_add(messages as u64, Relaxed);
    }

    /// Whether every message that was received is gone from here.
    pub(crate) fn nothing_held(&self) -> bool {
        self.received.load(Relaxed) == self.deleted.load(Relaxed) + self.released.load(Relaxed)
    }

    /// Another number whenever anything moved on; to receive what comes again is not to move on.
    pub(crate) fn moved(&self) -> u64 {
        let counters = [&self.inserted, &self.duplicate, &self.quarantined, &self.deleted];
        counters.into_iter().map(|counter| counter.load(Relaxed)).sum()
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            received: self.received.load(Relaxed),
            inserted: self.inserted.load(Relaxed),
            duplicate: self.duplicate.load(Relaxed),
            quarantined: self.quarantined.load(Relaxed),
            deleted: self.deleted.load(Relaxed),
            released: self.released.load(Relaxed),
            seconds: (self.started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| std::fmt::Error)?)
    }
}
