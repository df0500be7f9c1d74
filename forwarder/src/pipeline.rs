//! How the parts hang together: receivers, writers and deletes, from the start to the last message.

use crate::batch::{Batches, Limits};
use crate::config::Config;
use crate::database::{self, Database};
use crate::error::Error;
use crate::progress::Progress;
use crate::queue::{CALL_MESSAGES, Queue};
use crate::report::Reports;
use crate::retry::Backoff;
use crate::shared::Shared;
use crate::shutdown::Stop;
use crate::summary::Tally;
use crate::{delete, drain, receive, write};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::task::TaskTracker;

/// Carries messages until told to stop, or, draining, until the queue is empty.
pub(crate) async fn run(
    config: &Config,
    tally: &Arc<Tally>,
    progress: &Progress,
    stop: Stop,
) -> Result<(), Error> {
    let connection = config.database.settings()?;
    let Some((queue, database)) = open(config, &connection, &stop).await? else { return Ok(()) };
    let protocol = queue.protocol();
    tracing::info!(drain = config.drain, %protocol, "connected to the queue and the database");

    let most_held = config.max_in_flight.get().min(Semaphore::MAX_PERMITS);
    let shared = Arc::new(Shared {
        queue,
        connection,
        drain: config.drain,
        stop,
        tally: tally.clone(),
        progress: progress.clone(),
        reports: Reports::default(),
        places: Arc::new(Semaphore::new(most_held)),
        places_per_receive: most_held.min(CALL_MESSAGES) as u32,
        deletes: TaskTracker::new(),
        waiting_since: std::sync::Mutex::default(),
        fatal: OnceLock::new(),
    });
    let limits = Limits {
        messages: config.batch_messages.get(),
        bytes: usize::try_from(config.batch_bytes.as_u64()).unwrap_or(usize::MAX),
        linger: config.batch_linger,
    };
    let (to, from) = mpsc::channel(config.receivers.into());
    let batches = Arc::new(Mutex::new(Batches::new(from, limits)));

    let tasks = TaskTracker::new();
    for _ in 0..config.receivers {
        tasks.spawn(receive::run(shared.clone(), to.clone()));
    }
    drop(to); // the channel ends with the last receiver
    let mut first = Some(database);
    for _ in 0..config.writers {
        tasks.spawn(write::run(shared.clone(), batches.clone(), first.take()));
    }
    if config.drain {
        tasks.spawn(drain::watch(shared.clone()));
    }
    tasks.close();
    tasks.wait().await;
    shared.deletes.close();
    shared.deletes.wait().await;
    let rest = batches.lock().await.rest();
    delete::release(&shared, rest).await;

    match Arc::into_inner(shared).and_then(|shared| shared.fatal.into_inner()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Reaches both ends. A drain tries once; otherwise what can't be reached is waited for. `None` when
/// asked to stop meanwhile.
async fn open(
    config: &Config,
    connection: &database::Settings,
    stop: &Stop,
) -> Result<Option<(Queue, Database)>, Error> {
    let reports = Reports::default();
    let mut backoff = Backoff::default();
    loop {
        let both = async { Ok((Queue::open(config).await?, Database::open(connection).await?)) };
        let opened = tokio::select! {
            opened = both => opened,
            () = stop.receiving.cancelled() => return Ok(None),
        };
        match opened {
            Ok((queue, (database, may_log))) => {
                if let Some(may_log) = may_log {
                    tracing::warn!("{may_log}");
                }
                return Ok(Some((queue, database)));
            }
            Err(error @ Error::Unavailable { .. }) if !config.drain => reports.waiting_out(&error),
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = stop.receiving.cancelled() => return Ok(None),
        }
    }
}
