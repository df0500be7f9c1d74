//! What every part of the pipeline has a use for, and what it does about errors.

use super::held::Held;
use super::room::Room;
use super::shutdown::Stop;
use crate::database::Settings;
use crate::error::Error;
use crate::message::Message;
use crate::queue::Queue;
use crate::telemetry::progress::Progress;
use crate::telemetry::report::Reports;
use crate::telemetry::summary::Tally;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

/// How long a drain waits out an outage that comes in its midst.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);
/// Errors that are further apart than any backoff belong to different outages.
const SAME_OUTAGE: Duration = Duration::from_secs(30);

/// The pipeline's common ground.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) connection: Settings,
    /// How long the database may take for a batch.
    pub(crate) statement_timeout: Duration,
    pub(crate) drain: bool,
    pub(crate) stop: Stop,
    pub(crate) tally: Arc<Tally>,
    pub(crate) progress: Progress,
    pub(crate) reports: Reports,
    pub(crate) room: Arc<Room>,
    pub(crate) held: Arc<Held>,
    pub(crate) deletes: TaskTracker,
    /// How many deletes may be under way at once.
    pub(crate) delete_calls: Semaphore,
    /// How many writers wait for the database to come back.
    pub(crate) writers_waiting: watch::Sender<usize>,
    /// Since when a drain waits for something.
    pub(crate) waiting: Mutex<Option<Waiting>>,
    /// Long polls that are not waited for any more.
    pub(crate) left_over: TaskTracker,
    /// What could not be settled in time.
    pub(crate) given_back: Mutex<Vec<Message>>,
    /// What ended it all, if something did.
    pub(crate) fatal: Mutex<Option<Error>>,
}

/// An outage as a drain sees it.
pub(crate) struct Waiting {
    since: Instant,
    last_error: Instant,
    /// How much was done when it began.
    done: u64,
}

impl Shared {
    /// What to do about an error: `false`, wait and try again; `true`, it ends. A drain ends where
    /// somebody has to set something right, or an outage lasts; otherwise a forwarder never gives up.
    pub(crate) fn ends_on(&self, error: Error) -> bool {
        self.reports.waiting_out(&error);
        if !self.drain || (error.is_transient() && !self.waited_long_enough()) {
            return false;
        }
        // The first counts.
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.receiving.cancel();
        self.stop.settling.cancel();
        true
    }

    /// Whether nothing at all has moved for so long that a drain gives up.
    fn waited_long_enough(&self) -> bool {
        let (now, done) = (Instant::now(), self.tally.moved());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waiting {
            Some(waiting) if waiting.done == done && now - waiting.last_error < SAME_OUTAGE => {
                waiting.last_error = now;
                now - waiting.since > DRAIN_PATIENCE
            }
            _ => {
                *waiting = Some(Waiting { since: now, last_error: now, done });
                false
            }
        }
    }

    /// These can't be settled: they are made visible again at the end.
    pub(crate) fn give_back(&self, messages: Vec<Message>) {
        self.given_back.lock().unwrap_or_else(PoisonError::into_inner).extend(messages);
    }

    /// Takes what was given back.
    pub(crate) fn take_back(&self) -> Vec<Message> {
        std::mem::take(&mut self.given_back.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nothing is received from now on until what this returns is dropped.
    pub(crate) fn database_is_out(&self) -> impl Drop {
        struct Back<'a>(&'a watch::Sender<usize>);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|waiting| *waiting -= 1);
            }
        }
        self.writers_waiting.send_modify(|waiting| *waiting += 1);
        Back(&self.writers_waiting)
    }

    /// Waits until no writer waits for the database.
    pub(crate) async fn database_is_there(&self) {
        // The sender is beside us: there is no error.
        let _ = self.writers_waiting.subscribe().wait_for(|waiting| *waiting == 0).await;
    }
}
