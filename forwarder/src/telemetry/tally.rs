//! The tally: what was done, counted as it happens, served as metrics and printed at the end.

use crate::database::{Counts, sqlstate};
use crate::error::Error;
use crate::message::Message;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

/// Counters that every part of the pipeline adds to.
pub(crate) struct Tally {
    started: Instant,
    pub(crate) received: Counter,
    inserted: Counter,
    duplicate: Counter,
    quarantined: Counter,
    pub(crate) deleted: Counter,
    pub(crate) released: Counter,
    pub(crate) delete_failures: Counter,
    pub(crate) receive_errors: Counter,
    pub(crate) maintain_failures: Counter,
    /// In seconds since 1970; 0 before the first time.
    maintained_at: Gauge<f64, AtomicU64>,
    /// By class of SQLSTATE.
    database_errors: Family<[(&'static str, String); 1], Counter>,
    batch_messages: Histogram,
    batch_duration: Histogram,
    lag: Histogram,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            received: Counter::default(),
            inserted: Counter::default(),
            duplicate: Counter::default(),
            quarantined: Counter::default(),
            deleted: Counter::default(),
            released: Counter::default(),
            delete_failures: Counter::default(),
            receive_errors: Counter::default(),
            maintain_failures: Counter::default(),
            maintained_at: Gauge::default(),
            database_errors: Family::default(),
            batch_messages: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
            batch_duration: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            lag: Histogram::new(exponential_buckets(0.01, 4.0, 12)),
        }
    }

    /// Gives each number its name and help in the metrics.
    pub(crate) fn register(&self, metrics: &mut Registry) {
        for (name, help, counter) in [
            ("received", "Messages received", &self.received),
            ("inserted", "Messages that became rows", &self.inserted),
            ("duplicate", "Messages that were taken in before", &self.duplicate),
            (
                "quarantined",
                "Messages put into the quarantine: no logins, or refused by the login table",
                &self.quarantined,
            ),
            ("deleted", "Messages deleted from the queue", &self.deleted),
            ("released", "Messages made visible again", &self.released),
            ("delete_failures", "Tries to delete a message that failed", &self.delete_failures),
            ("receive_errors", "Receives that failed", &self.receive_errors),
            ("maintain_failures", "Calls of pgmask.maintain() that failed", &self.maintain_failures),
        ] {
            metrics.register(name, help, counter.clone());
        }
        let help = "When pgmask.maintain() last succeeded, since 1970, 0 before the first time";
        let name = "last_maintain_timestamp";
        metrics.register_with_unit(name, help, Unit::Seconds, self.maintained_at.clone());
        let help = "Failures of the database by class of SQLSTATE, 08 for a lost connection";
        metrics.register("database_errors", help, self.database_errors.clone());
        metrics.register("batch_messages", "Messages in a batch", self.batch_messages.clone());
        let help = "Time from the start of the try that succeeded to the commit of a batch";
        metrics.register_with_unit("batch_duration", help, Unit::Seconds, self.batch_duration.clone());
        let help = "Time from a message's SentTimestamp to its commit, for the oldest message of a batch";
        metrics.register_with_unit("lag", help, Unit::Seconds, self.lag.clone());
    }

    /// A batch was committed, after so long.
    pub(crate) fn committed(&self, counts: &Counts, batch: &[&Message], took: Duration) {
        self.inserted.inc_by(counts.inserted);
        self.duplicate.inc_by(counts.duplicate);
        self.quarantined.inc_by(counts.quarantined);
        self.batch_messages.observe(batch.len() as f64);
        self.batch_duration.observe(took.as_secs_f64());
        if let Some(oldest) = batch.iter().filter_map(|message| message.sent_at).min() {
            // Clocks differ: a message that was sent in the future has no lag.
            let lag = SystemTime::now().duration_since(oldest).unwrap_or_default();
            self.lag.observe(lag.as_secs_f64());
        }
    }

    /// The ledger was kept in shape.
    pub(crate) fn maintained(&self) {
        let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        self.maintained_at.set(since_1970.as_secs_f64());
    }

    /// The database failed.
    pub(crate) fn database_error(&self, error: &Error) {
        let class = sqlstate(error).and_then(|code| code.code().get(..2)).unwrap_or("08");
        let class = [("class", class.to_owned())];
        self.database_errors.get_or_create(&class).inc();
    }

    /// Changes on progress; redelivered messages that are only received don't count.
    pub(crate) fn moved(&self) -> u64 {
        let counters = [&self.inserted, &self.duplicate, &self.quarantined, &self.deleted];
        counters.into_iter().map(Counter::get).sum()
    }

    /// The line of JSON that the forwarder prints on stdout at its end.
    pub(crate) fn summary(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let counters = [&self.received, &self.inserted, &self.duplicate, &self.quarantined];
        let [received, inserted, duplicate, quarantined] = counters.map(Counter::get);
        let [deleted, released] = [&self.deleted, &self.released].map(Counter::get);
        format!(
            r#"{{"received":{received},"inserted":{inserted},"duplicate":{duplicate},"quarantined":{quarantined},"deleted":{deleted},"released":{released},"seconds":{seconds:.3}}}"#
        )
    }
}
