//! The way of a message, from the queue to the database and out of the queue.
//!
//! 1. [`room`]: there has to be room before anything is received, in messages and in bytes.
//! 2. [`receive`]: a receiver that has its turn ([`turns`]) takes up to ten messages off the queue. From
//!    here on [`held`] knows them, and [`renew`] keeps them hidden from other receivers.
//! 3. [`batch`]: they are put together with others.
//! 4. [`mod@write`]: a writer hands the batch to the database, and keeps at it until it is committed.
//! 5. [`delete`]: only now they are deleted from the queue.
//! 6. [`release`]: or, where time is up before that, made visible again.
//!
//! [`shutdown`] says when time is up, and [`drain`] when a queue is empty. [`shared`] is what all have in
//! common, their answer to errors above all; [`retry`] is how long they wait after one.
//!
//! This file ties them together: so many receivers and writers, from the start to the last message.

mod batch;
mod delete;
mod drain;
mod held;
mod receive;
mod release;
mod renew;
mod retry;
mod room;
mod shared;
pub(crate) mod shutdown;
mod turns;
mod write;

pub(crate) use held::Hold;
pub(crate) use room::Reserved;
pub(crate) use shared::Shared;

use crate::config::Config;
use crate::database::Database;
use crate::error::Error;
use crate::queue::{CALL_MESSAGES, Queue};
use crate::telemetry::metrics;
use crate::telemetry::progress::Progress;
use crate::telemetry::report::Reports;
use crate::telemetry::summary::Tally;
use batch::{Batches, Limits};
use receive::Receiver;
use retry::Backoff;
use room::Room;
use shutdown::Stop;
use std::sync::{Arc, PoisonError};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use turns::Turns;

/// Carries messages until told to stop, or, draining, until the queue is empty.
pub(crate) async fn run(
    config: &Config,
    tally: &Arc<Tally>,
    progress: &Progress,
    stop: Stop,
) -> Result<(), Error> {
    let connection = config.database.settings()?;
    let metrics = metrics::serve(config, tally.clone(), stop.receiving.clone()).await?;
    let Some((queue, database)) = open(config, &connection, &stop).await? else { return Ok(()) };
    let protocol = queue.protocol();
    tracing::info!(drain = config.drain, %protocol, "connected to the queue and the database");

    let bytes = usize::try_from(config.max_in_flight_bytes.as_u64()).unwrap_or(usize::MAX);
    let shared = Arc::new(Shared {
        queue,
        connection,
        statement_timeout: config.statement_timeout,
        drain: config.drain,
        stop,
        tally: tally.clone(),
        progress: progress.clone(),
        reports: Reports::default(),
        room: Arc::new(Room::new(config.max_in_flight.get(), bytes)),
        held: Arc::default(),
        deletes: TaskTracker::new(),
        delete_calls: Semaphore::new(delete::CALLS),
        writers_waiting: watch::Sender::new(0),
        out_since: std::sync::Mutex::default(),
        left_over: TaskTracker::new(),
        given_back: std::sync::Mutex::default(),
        fatal: std::sync::Mutex::default(),
    });
    metrics.ready(&shared);
    let limits = Limits {
        messages: config.batch_messages.get(),
        bytes: usize::try_from(config.batch_bytes.as_u64()).unwrap_or(usize::MAX),
        linger: config.batch_linger,
    };
    // What one receive brings has to fit into a batch, and into what may be held.
    let most = CALL_MESSAGES.min(limits.messages).min(config.max_in_flight.get());
    let turns = Arc::new(Turns::new(config.receivers));
    let (to, from) = mpsc::channel(turns.most());
    let batches = Arc::new(Mutex::new(Batches::new(from, limits)));

    let mut tasks = JoinSet::new();
    for _ in 0..turns.most() {
        let receiver = Receiver { shared: shared.clone(), turns: turns.clone(), most, to: to.clone() };
        tasks.spawn(receiver.run());
    }
    drop(to); // the channel ends with the last receiver
    let mut first = Some(database);
    for _ in 0..config.writers {
        tasks.spawn(write::run(shared.clone(), batches.clone(), first.take()));
    }
    if config.drain {
        tasks.spawn(drain::watch(shared.clone()));
    }
    let renewing = AbortOnDropHandle::new(tokio::spawn(renew::run(shared.clone())));
    // Time is up: what waits for room has to be read to be given back.
    let lifting = AbortOnDropHandle::new(tokio::spawn({
        let shared = shared.clone();
        async move {
            shared.stop.settling.cancelled().await;
            shared.room.lift_the_bound();
        }
    }));
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err() {
            shared.end_with(Error::Defect);
        }
    }
    drop(lifting);
    shared.deletes.close();
    shared.deletes.wait().await;
    drop(renewing);
    let rest = batches.lock().await.rest();
    shared.give_back(rest);
    release::run(&shared).await;

    let ended = shared.fatal.lock().unwrap_or_else(PoisonError::into_inner).take();
    ended.map_or(Ok(()), Err)
}

/// Reaches both ends. A drain tries once; otherwise what can't be reached is waited for. `None` when
/// asked to stop meanwhile.
async fn open(
    config: &Config,
    connection: &pg_settings::Settings,
    stop: &Stop,
) -> Result<Option<(Queue, Database)>, Error> {
    let reports = Reports::default();
    let mut backoff = Backoff::default();
    loop {
        // At once, so that the first receive is soon; of two errors the queue's is told.
        let both = async { tokio::join!(Queue::open(config), Database::open(connection)) };
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
            Err(error) if error.exit_code() == 69 && !config.drain => reports.waiting_out(&error),
            Err(error) => return Err(error),
        }
        stop.receiving.run_until_cancelled(tokio::time::sleep(backoff.next())).await;
    }
}
