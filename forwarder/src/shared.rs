//! What every part of the pipeline has a use for, and what it does about errors.

use crate::database::Settings;
use crate::error::Error;
use crate::progress::Progress;
use crate::queue::Queue;
use crate::report::Reports;
use crate::shutdown::Stop;
use crate::summary::Tally;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// How long a drain waits out an outage that comes in its midst.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

/// The pipeline's common ground.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) connection: Settings,
    pub(crate) drain: bool,
    pub(crate) stop: Stop,
    pub(crate) tally: Arc<Tally>,
    pub(crate) progress: Progress,
    pub(crate) reports: Reports,
    /// Places for the messages that may be held at once.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) places_per_receive: u32,
    pub(crate) deletes: TaskTracker,
    /// Since when a drain waits for something.
    pub(crate) waiting_since: std::sync::Mutex<Option<(Instant, u64)>>,
    /// What ended it all, if something did.
    pub(crate) fatal: OnceLock<Error>,
}

impl Shared {
    /// What to do about an error: `false`, wait and try again; `true`, it ends. A drain ends where
    /// somebody has to set something right, or an outage lasts; otherwise a forwarder never gives up.
    pub(crate) fn ends_on(&self, error: Error) -> bool {
        self.reports.waiting_out(&error);
        if !self.drain || (error.is_transient() && !self.waited_long_enough()) {
            return false;
        }
        let _ = self.fatal.set(error); // the first counts
        self.stop.receiving.cancel();
        self.stop.settling.cancel();
        true
    }

    /// Whether nothing at all has moved for so long that a drain gives up.
    fn waited_long_enough(&self) -> bool {
        let moved = self.tally.moved();
        let mut since = self.waiting_since.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match *since {
            Some((start, then)) if then == moved => start.elapsed() > DRAIN_PATIENCE,
            _ => {
                *since = Some((Instant::now(), moved));
                false
            }
        }
    }
}
