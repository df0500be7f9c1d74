//! The way of a message, from the queue to the database and out of the queue.
//!
//! 1. [`limiter`] decides how many receivers are at work, and [`crate::in_flight`] what they may hold.
//! 2. [`receive`]: a receiver takes up to ten messages from the queue. From here on they are in flight, each
//!    [`held`] with a guard, and [`renew`] keeps them hidden from other consumers.
//! 3. [`batch`]: they are put together with others.
//! 4. [`mod@write`]: a writer hands the batch to the database, and tries again until it is committed.
//! 5. [`delete`]: only now they are deleted from the queue.
//! 6. [`release`]: or, if time is up before that, made visible again.
//!
//! [`shutdown`] says when time is up, and [`drain`] when a queue is empty. [`outage`] says what is done
//! about errors, and [`backoff`] how long to wait after one. Beside
//! all that, [`maintain`] keeps the ledger in shape.
//!
//! This file gives each part the handles that it works with, starts them, and waits for their end.

mod backoff;
mod batch;
mod delete;
mod drain;
mod held;
mod limiter;
mod maintain;
mod outage;
mod receive;
mod release;
mod renew;
mod shutdown;
mod write;

use crate::config::Config;
use crate::database::{self, Database, Pool};
use crate::error::{Error, Kind};
use crate::in_flight::{Budget, InFlight};
use crate::queue::{CALL_MESSAGES, LONG_POLL, Queue};
use crate::telemetry::metrics::{self, Ends};
use crate::telemetry::progress::Progress;
use crate::telemetry::tally::Tally;
use backoff::Backoff;
use batch::{Batches, Limits};
use delete::Deletes;
use drain::Drain;
use limiter::Limiter;
use maintain::Maintenance;
use outage::Outages;
use pg_settings::Settings;
use receive::{Entrance, Receiver};
use release::Releases;
use renew::Renewing;
use shutdown::Stop;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use write::Writer;

/// A drain polls more often, to see sooner that the queue is empty.
const DRAIN_POLL: Duration = Duration::from_secs(1);

/// Carries messages until told to stop, or, draining, until the queue is empty; a second signal ends that at
/// once. Prints the summary.
pub(crate) async fn carry(config: &Config, progress: &Progress) -> Result<(), Error> {
    let stop = shutdown::on_signal(config.shutdown_grace)?;
    let tally = Arc::new(Tally::new());
    let carried = run(config, &tally, progress, stop.clone());
    let ended = stop.everything.run_until_cancelled(carried).await.unwrap_or_else(|| Err(stop.error()));
    progress.finish();
    // If nothing reads it, or the disk is full, the messages are carried nevertheless.
    let _ = writeln!(std::io::stdout(), "{}", tally.summary());
    ended
}

async fn run(config: &Config, tally: &Arc<Tally>, progress: &Progress, stop: Stop) -> Result<(), Error> {
    let settings = database::settings(&config.database)?;
    let in_flight = Arc::new(InFlight::default());
    let outages = Arc::new(Outages::new(config.drain, stop.clone(), tally.clone()));
    let metrics = metrics::serve(config, tally.clone(), in_flight.clone(), stop.receiving.clone()).await?;
    let timing_out =
        config.drain_timeout.filter(|_| config.drain).map(|after| drain::time_out(after, stop.clone()));
    let timing_out = timing_out.map(|timing_out| AbortOnDropHandle::new(tokio::spawn(timing_out)));
    let Some((queue, database)) = open(config, &settings, &outages, &stop).await? else {
        return if config.drain { Err(drain::unfinished()) } else { Ok(()) };
    };
    let protocol = queue.protocol();
    tracing::info!(drain = config.drain, %protocol, "connected to the queue and the database");
    let pool = Arc::new(Pool::new(settings, config.writers.into(), database));
    metrics.connected(Ends { queue: queue.clone(), pool: pool.clone() });

    let limits = Limits {
        messages: config.batch_messages.get(),
        bytes: bytes(config.batch_bytes),
        linger: config.batch_linger,
    };
    // What one receive brings has to fit into a batch, and into the budget.
    let most = CALL_MESSAGES.min(limits.messages).min(config.max_in_flight.get());
    let budget = Arc::new(Budget::new(config.max_in_flight.get(), bytes(config.max_in_flight_bytes)));
    let limiter = Arc::new(Limiter::new(config.receivers));
    let (to, from) = mpsc::channel(limiter.most());
    let batches = Arc::new(Mutex::new(Batches::new(from, limits)));
    let releases = Arc::new(Releases {
        queue: queue.clone(),
        outages: outages.clone(),
        tally: tally.clone(),
        messages: std::sync::Mutex::default(),
        left_over: TaskTracker::new(),
    });
    let deletes = Deletes {
        queue: queue.clone(),
        calls: Arc::new(Semaphore::new(delete::CALLS)),
        under_way: TaskTracker::new(),
        releases: releases.clone(),
        outages: outages.clone(),
        progress: progress.clone(),
        tally: tally.clone(),
        stop: stop.clone(),
    };
    let receiver = Receiver {
        queue: queue.clone(),
        wait: if config.drain { DRAIN_POLL } else { LONG_POLL },
        most,
        limiter: limiter.clone(),
        pool: pool.clone(),
        budget: budget.clone(),
        entrance: Entrance {
            in_flight: in_flight.clone(),
            tally: tally.clone(),
            hidden: queue.visibility_timeout(),
        },
        to,
        releases: releases.clone(),
        outages: outages.clone(),
        tally: tally.clone(),
        stop: stop.clone(),
    };
    let writer = Writer {
        pool: pool.clone(),
        statement_timeout: config.statement_timeout,
        batches: batches.clone(),
        deletes: deletes.clone(),
        releases: releases.clone(),
        outages: outages.clone(),
        tally: tally.clone(),
        stop: stop.clone(),
    };

    let mut tasks = JoinSet::new();
    for _ in 0..limiter.most() {
        tasks.spawn(receiver.clone().run());
    }
    drop(receiver); // the channel to the writers ends with the last receiver
    for _ in 0..config.writers {
        tasks.spawn(writer.clone().run());
    }
    if config.drain {
        let (queue, in_flight, outages) = (queue.clone(), in_flight.clone(), outages.clone());
        let drain = Drain { queue, in_flight, outages, progress: progress.clone(), stop: stop.clone() };
        tasks.spawn(drain.run());
    }
    let maintenance =
        Maintenance { pool, statement_timeout: config.statement_timeout, outages: outages.clone() };
    let maintaining = AbortOnDropHandle::new(tokio::spawn(maintenance.run()));
    let renewing =
        AbortOnDropHandle::new(tokio::spawn(Renewing { queue, in_flight, outages: outages.clone() }.run()));
    // When time is up, what waits for the budget has to be read, to be released.
    let lifting = AbortOnDropHandle::new(tokio::spawn(async move {
        stop.settling.cancelled().await;
        budget.lift();
    }));
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err() {
            outages.end_with(Error::panicked());
        }
    }
    drop((lifting, timing_out, maintaining));
    deletes.ended().await;
    drop(renewing);
    releases.add(batches.lock().await.rest());
    releases.run().await;
    outages.take_fatal().map_or(Ok(()), Err)
}

fn bytes(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// Connects to both ends. A drain tries once; otherwise an end that can't be reached is waited for. `None`
/// when told to stop meanwhile.
async fn open(
    config: &Config,
    settings: &Settings,
    outages: &Outages,
    stop: &Stop,
) -> Result<Option<(Queue, Database)>, Error> {
    let mut backoff = Backoff::default();
    loop {
        // At once, so that the first receive is soon. Of two errors the queue's is reported.
        let both = async { tokio::join!(Queue::open(config), Database::open(settings)) };
        let Some((queue, database)) = stop.receiving.run_until_cancelled(both).await else {
            return Ok(None);
        };
        match queue.and_then(|queue| Ok((queue, database?))) {
            Ok((queue, (database, may_log))) => {
                if let Some(may_log) = may_log {
                    tracing::warn!("{may_log}");
                }
                return Ok(Some((queue, database)));
            }
            Err(error) if error.kind == Kind::Transient && !config.drain => outages.report(&error),
            Err(error) => return Err(error),
        }
        stop.receiving.run_until_cancelled(tokio::time::sleep(backoff.next())).await;
    }
}
