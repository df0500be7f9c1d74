//! Draining: is the queue empty?

use super::backoff::Backoff;
use super::outage::Outages;
use super::shutdown::Stop;
use crate::error::End;
use crate::in_flight::InFlight;
use crate::queue::Queue;
use crate::telemetry::progress::Progress;
use std::sync::Arc;
use std::time::Duration;

/// How often the queue is asked.
const INTERVAL: Duration = Duration::from_millis(500);
/// How often it has to be seen empty, since SQS's counts are approximate.
const TIMES: u32 = 2;

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
    /// forwarder or at another consumer.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        let mut seen_empty = 0;
        while seen_empty < TIMES {
            let wait = match self.queue.depth().await {
                Ok(depth) => {
                    backoff.reset();
                    self.outages.over(End::Queue);
                    self.progress.left(depth.total());
                    let is_empty = depth.total() == 0 && self.in_flight.size().0 == 0;
                    seen_empty = if is_empty { seen_empty + 1 } else { 0 };
                    INTERVAL
                }
                Err(error) => {
                    seen_empty = 0;
                    if self.outages.ends_on(error) {
                        return;
                    }
                    backoff.next()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.receiving.cancelled() => return,
            }
        }
        self.stop.receiving.cancel();
    }
}
