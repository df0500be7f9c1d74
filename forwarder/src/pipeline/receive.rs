//! Receivers: each takes messages from the queue, ten at most at a time, while the budget has room for them
//! and the database takes them in.

use super::backoff::Backoff;
use super::held::Held;
use super::limiter::Limiter;
use super::outage::Outages;
use super::release::Releases;
use super::shutdown::Stop;
use crate::database::Pool;
use crate::in_flight::{Budget, InFlight, Reservation};
use crate::message::Message;
use crate::queue::{Queue, is_over_limit};
use crate::telemetry::tally::Tally;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A receive that took longer and was not full has waited for messages: the queue was empty.
const WAITED: Duration = Duration::from_millis(250);
/// A queue that holds messages answers sooner than this, also when it is slow.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// What a receive brought.
enum Received {
    /// So many messages, after so long.
    Messages(usize, Duration),
    Error,
    /// Nothing, and this receiver ends.
    End,
}

/// Where messages become messages in flight.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) in_flight: Arc<InFlight>,
    pub(super) tally: Arc<Tally>,
    /// Their visibility timeout.
    pub(super) hidden: Duration,
}

/// What a receiver works with.
#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) queue: Queue,
    /// How long a receive waits for messages.
    pub(super) wait: Duration,
    /// The most messages that a receive may bring.
    pub(super) most: usize,
    pub(super) limiter: Arc<Limiter>,
    pub(super) pool: Arc<Pool>,
    pub(super) budget: Arc<Budget>,
    pub(super) entrance: Entrance,
    pub(super) to: mpsc::Sender<Vec<Held>>,
    pub(super) releases: Arc<Releases>,
    pub(super) outages: Arc<Outages>,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: Stop,
}

impl Entrance {
    /// From here on the messages are in flight.
    fn enter(&self, messages: Vec<Message>, reservation: Reservation, received: Instant) -> Vec<Held> {
        self.tally.received.inc_by(messages.len() as u64);
        let sizes: Vec<usize> = messages.iter().map(|message| message.body.0.len()).collect();
        let permits = reservation.into_permits(&sizes);
        let enter = |((message, bytes), permit): ((Message, usize), _)| {
            let handle = message.receipt_handle.clone();
            Held::new(message, self.in_flight.enter(handle, bytes, permit, received, self.hidden))
        };
        messages.into_iter().zip(sizes).zip(permits).map(enter).collect()
    }
}

impl Receiver {
    /// Receives until told to stop.
    pub(super) async fn run(self) {
        let stop = &self.stop.receiving;
        while stop.run_until_cancelled(self.limiter.begin()).await.is_some() {
            let mut backoff = Backoff::default();
            loop {
                let ready = async {
                    // A receive without a database would use up a message's receive count.
                    self.pool.works().await;
                    self.budget.reserve(self.most).await
                };
                let Some(reservation) = stop.run_until_cancelled(ready).await else { return };
                let rests = match self.receive(reservation).await {
                    Received::Messages(number, took) => {
                        backoff.reset();
                        if number == self.most {
                            self.limiter.full(took)
                        } else {
                            (number == 0 || took > WAITED) && self.limiter.empty()
                        }
                    }
                    Received::Error => {
                        let rests = self.limiter.failed();
                        stop.run_until_cancelled(tokio::time::sleep(backoff.next())).await;
                        rests
                    }
                    Received::End => return,
                };
                if rests {
                    break;
                }
            }
        }
    }

    /// Receives once and hands on what came.
    async fn receive(&self, reservation: Reservation) -> Received {
        let start = Instant::now();
        let mut call = {
            let (queue, reservation) = (self.queue.clone(), reservation.clone());
            let (most, wait) = (self.most, self.wait);
            Box::pin(async move { queue.receive(most, wait, reservation).await })
        };
        let received = tokio::select! {
            received = &mut call => received,
            () = self.abandons(&reservation, start) => {
                let (entrance, releases) = (self.entrance.clone(), self.releases.clone());
                self.releases.left_over.spawn(async move {
                    if let Ok(messages) = call.await {
                        releases.add(entrance.enter(messages, reservation, start));
                    }
                });
                return Received::End;
            }
        };
        let messages = match received {
            Ok(messages) => self.entrance.enter(messages, reservation, start),
            // No failure: other consumers hold what the queue can give. Receiving slows down.
            Err(error) if is_over_limit(&error) => {
                self.outages.report(&error);
                return Received::Error;
            }
            Err(error) => {
                self.tally.receive_errors.inc();
                return if self.outages.ends_on(error) { Received::End } else { Received::Error };
            }
        };
        let (number, took) = (messages.len(), start.elapsed());
        if number > 0 {
            tokio::select! {
                biased;
                () = self.stop.settling.cancelled() => {
                    self.releases.add(messages);
                    return Received::End;
                }
                Ok(slot) = self.to.reserve() => slot.send(messages),
            }
        }
        Received::Messages(number, took)
    }

    /// Waits until a receive is not waited for any more: told to stop, or time is up, if its answer has begun. A
    /// receive that is given up may still be answered, which hides messages until their visibility timeout.
    /// One that has just been sent probably brings some, so it is waited for; a long poll that has waited
    /// for a while is not. What it brings nevertheless is made visible again.
    async fn abandons(&self, reservation: &Reservation, start: Instant) {
        self.stop.receiving.cancelled().await;
        tokio::time::sleep_until((start + ANSWERS_WITHIN).into()).await;
        if reservation.is_answered() {
            self.stop.settling.cancelled().await;
            tokio::time::sleep(ANSWERS_WITHIN).await;
        }
    }
}
