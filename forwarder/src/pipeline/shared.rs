//! What every part of the pipeline has a use for, and what it does about errors.

use super::held::Held;
use super::room::Room;
use super::shutdown::Stop;
use crate::error::{End, Error};
use crate::message::Message;
use crate::queue::Queue;
use crate::telemetry::progress::Progress;
use crate::telemetry::report::Reports;
use crate::telemetry::summary::Tally;
use pg_settings::Settings;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

/// How long a drain waits out an outage that comes in its midst.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

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
    /// Since when each end has been out, and how much was done by then.
    pub(crate) out_since: Mutex<HashMap<End, (Instant, u64)>>,
    /// Long polls that are not waited for any more.
    pub(crate) left_over: TaskTracker,
    /// What could not be settled in time.
    pub(crate) given_back: Mutex<Vec<Message>>,
    /// What ended it all, if something did.
    pub(crate) fatal: Mutex<Option<Error>>,
}

impl Shared {
    /// What to do about an error: `false`, wait and try again; `true`, it ends. A drain ends where
    /// somebody has to set something right, or an outage lasts; otherwise a forwarder never gives up.
    pub(crate) fn ends_on(&self, error: Error) -> bool {
        self.reports.waiting_out(&error);
        if !self.drain || (error.is_transient() && !self.waited_long_enough(error.end())) {
            return false;
        }
        self.end_with(error);
        true
    }

    /// Ends it all, giving back what is held. The first error counts.
    pub(crate) fn end_with(&self, error: Error) {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.receiving.cancel();
        self.stop.settling.cancel();
    }

    /// Whether an end has been out, and nothing has moved, for so long that a drain gives up.
    fn waited_long_enough(&self, end: End) -> bool {
        let (now, done) = (Instant::now(), self.tally.moved());
        let mut out_since = self.out_since.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, _) = *out_since
            .entry(end)
            .and_modify(|out| {
                if out.1 != done {
                    *out = (now, done);
                }
            })
            .or_insert((now, done));
        now - since > DRAIN_PATIENCE
    }

    /// An end has done what it was asked: an outage is over.
    pub(crate) fn works(&self, end: End) {
        self.out_since.lock().unwrap_or_else(PoisonError::into_inner).remove(&end);
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
