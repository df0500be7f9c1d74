//! Receivers: each takes messages off the queue, ten at most at a time, while there is room for them
//! and a database to take them in.

use super::retry::Backoff;
use super::room::Reserved;
use super::shared::Shared;
use crate::config::Receivers;
use crate::error::Error;
use crate::message::Message;
use crate::queue::LONG_POLL;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// A drain looks more often whether it is done.
const DRAIN_POLL: Duration = Duration::from_secs(1);
/// The most receivers that `auto` has at work.
const AUTO_MOST: usize = 64;
/// After an error no receiver is added for so long: what cuts connections when there are many would cut
/// them again at once.
const NO_MORE_FOR: Duration = Duration::from_secs(5);
/// A receive that took longer and was not full has waited for messages: the queue was empty.
const WAITED: Duration = Duration::from_millis(250);
/// A queue that holds messages answers sooner than this, also when it is slow.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// How many receivers are at work: those that have a turn. There is one at least. Each that gets a full
/// answer lets one more begin, so that they double with every round while the queue is full; each that
/// finds the queue empty, or out of order, rests, and after an error none begins for a while. So an idle
/// queue has one long poll at a time.
pub(crate) struct Turns {
    waiting: Semaphore,
    at_work: AtomicUsize,
    least: usize,
    most: usize,
    failed_at: Mutex<Option<Instant>>,
}

impl Turns {
    pub(crate) fn new(receivers: Receivers) -> Self {
        let (least, most) = match receivers {
            Receivers::Auto => (1, AUTO_MOST),
            Receivers::Fixed(number) => (number, number),
        };
        Self {
            waiting: Semaphore::new(least),
            at_work: AtomicUsize::new(least),
            least,
            most,
            failed_at: Mutex::default(),
        }
    }

    /// The most receivers that can have a turn.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    async fn begin(&self) {
        if let Ok(turn) = self.waiting.acquire().await {
            turn.forget();
        }
    }

    fn one_more(&self) {
        let failed_at = *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if failed_at.is_some_and(|at| at.elapsed() < NO_MORE_FOR) {
            return;
        }
        let more = |at_work| (at_work < self.most).then_some(at_work + 1);
        if self.at_work.fetch_update(Relaxed, Relaxed, more).is_ok() {
            self.waiting.add_permits(1);
        }
    }

    fn failed(&self) {
        *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether this one rests.
    fn one_less(&self) -> bool {
        let less = |at_work| (at_work > self.least).then(|| at_work - 1);
        self.at_work.fetch_update(Relaxed, Relaxed, less).is_ok()
    }
}

/// What a receive came back with.
enum Came {
    Messages(usize),
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
                let start = Instant::now();
                let rests = match self.receive(room).await {
                    Came::Messages(number) => {
                        backoff.reset();
                        if number == self.most {
                            self.turns.one_more();
                        }
                        number == 0 || (number < self.most && start.elapsed() > WAITED)
                    }
                    Came::Error => {
                        self.turns.failed();
                        stop.run_until_cancelled(tokio::time::sleep(backoff.next())).await;
                        true
                    }
                    Came::End => return,
                };
                if rests && self.turns.one_less() {
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
        let number = messages.len();
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
        Came::Messages(number)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_grows_to_a_bound_and_shrinks_to_one() {
        let turns = Turns::new(Receivers::Auto);
        (0..1000).for_each(|_| turns.one_more());
        assert_eq!(turns.waiting.available_permits(), AUTO_MOST);
        assert_eq!((0..1000).filter(|_| turns.one_less()).count(), AUTO_MOST - 1);
        turns.failed();
        turns.one_more();
        assert_eq!(turns.at_work.load(Relaxed), 1);
        let turns = Turns::new(Receivers::Fixed(3));
        turns.one_more();
        assert_eq!((turns.waiting.available_permits(), turns.one_less()), (3, false));
    }
}
