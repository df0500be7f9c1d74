//! Draining: when is a queue empty?

use super::retry::Backoff;
use super::shared::Shared;
use crate::error::End;
use std::sync::Arc;
use std::time::Duration;

/// How often the queue is asked.
const INTERVAL: Duration = Duration::from_millis(500);
/// SQS counts approximately, so once is not enough.
const TIMES: u32 = 2;

/// Stops receiving when the queue is seen empty twice: nothing visible, delayed or in flight, at this
/// forwarder or any other.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    let mut seen_empty = 0;
    while seen_empty < TIMES {
        let wait = match shared.queue.depth().await {
            Ok(depth) => {
                backoff.reset();
                shared.works(End::Queue);
                shared.progress.left(depth.total());
                let nothing_held = shared.held.size().0 == 0;
                seen_empty = if depth.total() == 0 && nothing_held { seen_empty + 1 } else { 0 };
                INTERVAL
            }
            Err(error) => {
                seen_empty = 0;
                if shared.ends_on(error) {
                    return;
                }
                backoff.next()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.stop.receiving.cancelled() => return,
        }
    }
    shared.stop.receiving.cancel();
}
