//! Receivers: each takes messages off the queue, ten at most at a time, while there is room for them
//! and a database to take them in.

use super::retry::Backoff;
use super::room::Reserved;
use super::shared::Shared;
use super::turns::Turns;
use crate::error::Error;
use crate::message::Message;
use crate::queue::LONG_POLL;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A drain looks more often whether it is done.
const DRAIN_POLL: Duration = Duration::from_secs(1);
/// A receive that took longer and was not full has waited for messages: the queue was empty.
const WAITED: Duration = Duration::from_millis(250);
/// A queue that holds messages answers sooner than this, also when it is slow.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// What a receive came back with.
enum Came {
    /// So many messages, after so long.
    Messages(usize, Duration),
    Error,
    /// Nothing, and there are no more.
    End,
}

/// What a receiver works with.
pub(crate) struct Receiver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) turns: Arc<Turns>,
    /// The most messages a receive may bring.
    pub(crate) most: usize,
    pub(crate) to: mpsc::Sender<Vec<Message>>,
}

impl Receiver {
    /// Receives until told to stop.
    pub(crate) async fn run(self) {
        let stop = self.shared.stop.receiving.clone();
        while stop.run_until_cancelled(self.turns.begin()).await.is_some() {
            let mut backoff = Backoff::default();
            loop {
                let ready = async {
                    self.shared.database_is_there().await;
                    // Room first: what is received has to be held.
                    self.shared.room.reserve(self.most).await
                };
                let Some(room) = stop.run_until_cancelled(ready).await else { return };
                let rests = match self.receive(room).await {
                    Came::Messages(number, took) => {
                        backoff.reset();
                        if number == self.most {
                            self.turns.full(took)
                        } else {
                            (number == 0 || took > WAITED) && self.turns.empty()
                        }
                    }
                    Came::Error => {
                        let rests = self.turns.failed();
                        stop.run_until_cancelled(tokio::time::sleep(backoff.next())).await;
                        rests
                    }
                    Came::End => return,
                };
                if rests {
                    break;
                }
            }
        }
    }

    /// Receives once and hands on what came.
    async fn receive(&self, room: Reserved) -> Came {
        let shared = &self.shared;
        let start = Instant::now();
        let mut receive = {
            let (shared, room, most) = (shared.clone(), room.clone(), self.most);
            let wait = if shared.drain { DRAIN_POLL } else { LONG_POLL };
            Box::pin(async move { shared.queue.receive(most, wait, room).await })
        };
        let received = tokio::select! {
            received = &mut receive => received,
            () = self.cut(&room, start) => {
                // What is given back in a moment may come by this way, and is given back once more.
                shared.left_over.spawn(leave(shared.clone(), receive));
                return Came::End;
            }
        };
        let mut messages = match received {
            Ok(messages) => messages,
            Err(error) => {
                shared.tally.receive_errors.inc();
                return if shared.ends_on(error) { Came::End } else { Came::Error };
            }
        };
        let (number, took) = (messages.len(), start.elapsed());
        shared.tally.received.inc_by(number as u64);
        let sizes: Vec<usize> = messages.iter().map(|message| message.body.0.len()).collect();
        let hidden = shared.queue.visibility_timeout();
        for ((message, place), bytes) in messages.iter_mut().zip(room.into_places(&sizes)).zip(sizes) {
            let handle = message.receipt_handle.clone();
            message.hold = Some(shared.held.hold(handle, bytes, place, start, hidden));
        }
        if number > 0 {
            tokio::select! {
                biased;
                () = shared.stop.settling.cancelled() => {
                    shared.give_back(messages);
                    return Came::End;
                }
                Ok(slot) = self.to.reserve() => slot.send(messages),
            }
        }
        Came::Messages(number, took)
    }

    /// When a receive is given up: told to stop, unless messages are on their way. A receive that is
    /// given up may still be answered, and hide messages from everybody until their visibility
    /// time-out. One that was asked just now probably brings some, so it is seen through; one that
    /// has waited for a while is not waited for.
    async fn cut(&self, room: &Reserved, start: Instant) {
        self.shared.stop.receiving.cancelled().await;
        tokio::time::sleep_until((start + ANSWERS_WITHIN).into()).await;
        if room.is_answered() {
            std::future::pending::<()>().await;
        }
    }
}

/// A long poll that nobody waits for any more, though the queue may still answer it.
async fn leave(shared: Arc<Shared>, receive: impl Future<Output = Result<Vec<Message>, Error>>) {
    if let Ok(messages) = receive.await {
        shared.tally.received.inc_by(messages.len() as u64);
        shared.give_back(messages);
    }
}
