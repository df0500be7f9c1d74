//! Receivers: each takes messages off the queue, ten at most at a time, while there is room for them.

use crate::delete;
use crate::message::Message;
use crate::retry::Backoff;
use crate::shared::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// SQS: the longest wait of a long poll.
const LONG_POLL: Duration = Duration::from_secs(20);
/// A drain looks more often whether it is done.
const DRAIN_POLL: Duration = Duration::from_secs(1);

/// Receives until told to stop.
pub(crate) async fn run(shared: Arc<Shared>, to: mpsc::Sender<Vec<Message>>) {
    let wait = if shared.drain { DRAIN_POLL } else { LONG_POLL };
    let mut backoff = Backoff::default();
    loop {
        // Room first: what is received has to be held.
        let room = shared.places.clone().acquire_many_owned(shared.places_per_receive);
        let room = tokio::select! {
            room = room => room,
            () = shared.stop.receiving.cancelled() => return,
        };
        let Ok(mut room) = room else { return };
        // A long poll that is given up may still be answered, and hide messages from everybody until
        // their visibility time-out. A drain's polls are short, so it sees them through; otherwise
        // stopping at once counts more.
        let received = tokio::select! {
            received = shared.queue.receive(shared.places_per_receive, wait) => received,
            () = shared.stop.receiving.cancelled(), if !shared.drain => return,
        };
        match received {
            Ok(messages) if messages.is_empty() => backoff.reset(),
            Ok(mut messages) => {
                backoff.reset();
                shared.tally.received(messages.len());
                for message in &mut messages {
                    message.place = room.split(1);
                }
                drop(room);
                tokio::select! {
                    biased;
                    () = shared.stop.settling.cancelled() => return delete::release(&shared, messages).await,
                    Ok(slot) = to.reserve() => slot.send(messages),
                }
            }
            Err(error) => {
                drop(room);
                if shared.ends_on(error) {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(backoff.next()) => {}
                    () = shared.stop.receiving.cancelled() => return,
                }
            }
        }
    }
}
