//! Draining: is the queue empty?

use super::outage::Outages;
use super::shutdown::Stop;
use crate::error::{End, Error, Kind};
use crate::queue::Queue;
use flow_control::{Backoff, InFlight};
use safe_output::Progress;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the queue is asked, and the time between the two looks that see it empty.
const INTERVAL: Duration = Duration::from_millis(500);
/// How often it has to be seen empty, since SQS's counts are approximate.
const TIMES: u32 = 2;
/// A wait for messages that others hold is logged after this, and then once a minute.
const LOG_WAIT_AFTER: Duration = Duration::from_secs(10);
const LOG_WAIT_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What draining works with.
pub(super) struct Drain {
    pub(super) queue: Queue,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) outages: Arc<Outages>,
    pub(super) progress: Progress,
    pub(super) stop: Stop,
}

impl Drain {
    /// Stops receiving when the queue is seen empty twice: no message visible, delayed or in flight, at this
    /// forwarder or at another consumer. It is an error if receiving is stopped before that.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        let mut seen_empty = 0;
        let mut log_wait_at = None;
        loop {
            let wait = match self.queue.depth().await {
                Ok(depth) => {
                    backoff.reset();
                    self.outages.over(End::Queue);
                    self.progress.left(depth.total());
                    let nothing_here = depth.visible == 0 && self.in_flight.size().0 == 0;
                    seen_empty = if nothing_here && depth.total() == 0 { seen_empty + 1 } else { 0 };
                    if seen_empty == TIMES {
                        return self.stop.stop_receiving.cancel();
                    }
                    let now = Instant::now();
                    if !nothing_here || seen_empty > 0 {
                        log_wait_at = None;
                    } else if now >= *log_wait_at.get_or_insert(now + LOG_WAIT_AFTER) {
                        tracing::info!(
                            in_flight = depth.in_flight,
                            delayed = depth.delayed,
                            "waiting for messages that are in flight at other consumers, or delayed"
                        );
                        log_wait_at = Some(now + LOG_WAIT_AGAIN_AFTER);
                    }
                    INTERVAL
                }
                Err(error) => {
                    seen_empty = 0;
                    if self.outages.ends_on(error) {
                        return;
                    }
                    backoff.next_wait()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // At once after the last delete, for the first of the two looks.
                () = self.in_flight.emptied(), if seen_empty == 0 => {}
                () = self.stop.stop_receiving.cancelled() => return self.outages.ended_by(unfinished()),
            }
        }
    }
}

/// A drain that was stopped.
pub(super) fn unfinished() -> Error {
    Error::new(Kind::Unfinished, None, "the drain was stopped before the queue was empty")
}

/// Stops receiving once a drain has taken so long.
pub(super) async fn time_out(after: Duration, stop: Stop) {
    tokio::time::sleep(after).await;
    tracing::warn!("the drain has taken --drain-timeout: receiving no more, settling what is held");
    stop.stop_receiving.cancel();
}
