//! The way of a message, from the queue to the database and out of the queue.
//!
//! 1. [`receive`]: a receiver takes up to ten messages from the queue, when [`flow_control`]'s budget has room
//!    for them. From here on they are in flight, each [`held`] with a guard, and [`renew`] keeps them hidden
//!    from other consumers.
//! 2. [`batch`]: they are put together with others.
//! 3. [`mod@write`]: a writer hands the batch to the database, and tries again until it is committed.
//! 4. [`delete`]: only now they are deleted from the queue.
//! 5. [`release`]: or, if time is up before that, made visible again.
//!
//! [`shutdown`] says when time is up, and [`drain`] when a queue is empty. [`outage`] says what is done
//! about errors. Beside all that, [`maintain`] keeps the ledger in shape.
//!
//! This file gives each part the handles that it works with, starts them, and waits for their end.

mod batch;
mod delete;
mod drain;
mod held;
mod maintain;
mod outage;
mod receive;
mod release;
mod renew;
mod shutdown;
mod write;

use crate::config::Config;
use crate::database::{self, Database, Opener, Pool};
use crate::error::{Error, Kind};
use crate::queue::{CALL_MESSAGES, LARGEST_ANSWER, LONGEST_HIDDEN, Queue};
use crate::telemetry::metrics;
use crate::telemetry::tally::Tally;
use batch::{Batches, Limits};
use delete::Deletes;
use drain::Drain;
use flow_control::{Backoff, Budget, InFlight};
use maintain::Maintenance;
use outage::Outages;
use pg_settings::Settings;
use receive::Receiver;
use release::Releases;
use renew::Renewing;
use safe_output::Progress;
use shutdown::Stop;
use std::io::Write;
use std::sync::Arc;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use write::Writer;

/// Carries messages until told to stop, or, draining, until the queue is empty; a second signal ends that at
/// once. Prints the summary.
pub(crate) async fn carry(config: &Config, progress: &Progress) -> Result<(), Error> {
    let stop = shutdown::on_signal(config.shutdown_grace)?;
    let tally = Arc::new(Tally::new());
    let carried = run(config, &tally, progress, stop.clone());
    let ended = stop.exit_now.run_until_cancelled(carried).await.unwrap_or_else(|| Err(stop.error()));
    progress.finish();
    // If nothing reads it, or the disk is full, the messages are carried nevertheless.
    let _ = writeln!(std::io::stdout(), "{}", tally.summary());
    ended
}

async fn run(config: &Config, tally: &Arc<Tally>, progress: &Progress, stop: Stop) -> Result<(), Error> {
    let settings = database::settings(&config.database)?;
    let in_flight = Arc::new(InFlight::new(config.visibility_timeout, LONGEST_HIDDEN));
    let outages = Arc::new(Outages::new(config.drain, stop.clone(), tally.clone()));
    let stopping = stop.stop_receiving.clone();
    let limiter = Arc::new(receive::limiter(config.receivers));
    let metrics = match config.metrics_listen {
        Some(at) => Some(metrics::serve(at, tally, in_flight.clone(), limiter.clone(), stopping).await?),
        None => None,
    };
    // What never ends by itself: it ends when this is dropped.
    let mut background = JoinSet::new();
    if let Some(after) = config.drain_timeout.filter(|_| config.drain) {
        background.spawn(drain::time_out(after, stop.clone()));
    }
    let Some((queue, database)) = open(config, &settings, &outages, &stop).await? else {
        return if config.drain { Err(drain::unfinished()) } else { Ok(()) };
    };
    tracing::info!(drain = config.drain, protocol = %queue.protocol(), "connected to the queue and the database");
    let pool = Arc::new(Pool::new(Opener(settings), config.writers, database));
    let _looks = metrics.as_ref().map(|metrics| metrics.connected(queue.clone(), pool.clone()));

    let limits =
        Limits { messages: config.batch_messages, bytes: config.batch_bytes, linger: config.batch_linger };
    let max_in_flight = config.max_in_flight.get();
    let budget = Arc::new(Budget::new(max_in_flight, config.max_in_flight_bytes, LARGEST_ANSWER));
    let (to_writers, from_receivers) = mpsc::channel(limiter.most());
    let batches = Arc::new(Mutex::new(Batches::new(from_receivers, limits)));
    let releases = Arc::new(Releases {
        queue: queue.clone(),
        outages: outages.clone(),
        tally: tally.clone(),
        messages: std::sync::Mutex::default(),
        abandoned: TaskTracker::new(),
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
        drain: config.drain,
        // What one receive brings has to fit into a batch, and into the budget.
        messages_per_receive: CALL_MESSAGES.min(limits.messages).min(max_in_flight),
        limiter: limiter.clone(),
        pool: pool.clone(),
        budget: budget.clone(),
        in_flight: in_flight.clone(),
        to_writers,
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
    let maintenance = Maintenance {
        pool,
        statement_timeout: config.statement_timeout,
        outages: outages.clone(),
        tally: tally.clone(),
    };
    let renewing = Renewing {
        queue: queue.clone(),
        visibility_timeout: config.visibility_timeout,
        in_flight: in_flight.clone(),
        outages: outages.clone(),
    };

    let mut tasks = JoinSet::new();
    for _ in 0..limiter.most() {
        tasks.spawn(outages.clone().watched(receiver.clone().run()));
    }
    drop(receiver); // the channel to the writers ends with the last receiver
    for _ in 0..config.writers {
        tasks.spawn(outages.clone().watched(writer.clone().run()));
    }
    if config.drain {
        let drain = Drain {
            queue,
            in_flight,
            outages: outages.clone(),
            progress: progress.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(outages.clone().watched(drain.run()));
    }
    background.spawn(outages.clone().watched(maintenance.run()));
    background.spawn(outages.clone().watched(renewing.run()));
    // When time is up, answers that are held back have to be read, so that their messages can be released.
    background.spawn(async move {
        stop.release_now.cancelled().await;
        budget.lift();
    });
    while tasks.join_next().await.is_some() {}
    deletes.ended().await;
    drop(background);
    releases.add(batches.lock().await.rest());
    releases.run().await;
    outages.take_fatal().map_or(Ok(()), Err)
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
        // At once, so that the first receive is soon.
        let both = async { tokio::join!(Queue::open(config), Database::open(settings)) };
        let Some((queue, database)) = stop.stop_receiving.run_until_cancelled(both).await else {
            return Ok(None);
        };
        let errors = match (queue, database) {
            (Ok(queue), Ok((database, may_log))) => {
                if let Some(may_log) = may_log {
                    tracing::warn!("{may_log}");
                }
                return Ok(Some((queue, database)));
            }
            (queue, database) => queue.err().into_iter().chain(database.err()),
        };
        let (waited_out, mut fatal): (Vec<_>, Vec<_>) =
            errors.partition(|error| error.kind == Kind::Transient && !config.drain);
        for error in waited_out {
            outages.report(&error);
        }
        // What somebody has to set right counts more than an end that can't be reached.
        fatal.sort_by_key(|error| error.kind == Kind::Transient);
        let mut fatal = fatal.into_iter();
        if let Some(error) = fatal.next() {
            fatal.for_each(|other| tracing::error!("{other}"));
            return Err(error);
        }
        stop.stop_receiving.run_until_cancelled(tokio::time::sleep(backoff.next_wait())).await;
    }
}
