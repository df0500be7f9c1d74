//! Receivers: each takes messages from the queue, ten at most at a time, while the budget has room for them
//! and the database takes them in.

use super::held::{HeldMessage, hold};
use super::outage::Outages;
use super::release::Releases;
use super::shutdown::Stop;
use crate::config::Receivers;
use crate::database::Pool;
use crate::queue::{LONG_POLL, Queue, is_over_limit};
use crate::telemetry::tally::Tally;
use flow_control::{Backoff, Budget, InFlight, Limiter, Reservation};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How many receivers `auto` has at work at most, and how many however slow the queue's answers are.
const AUTO_MOST: usize = 64;
const AUTO_FEW: usize = 16;
/// A receive that took longer and was not full has waited for messages: the queue was empty.
const WAITED: Duration = Duration::from_millis(250);
/// The longest time between the receives of a drain that finds nothing: its end would have to wait for a long poll.
const DRAIN_PAUSE: Duration = Duration::from_secs(1);
/// A queue that holds messages answers sooner than this, also when it is slow.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// What came of a receive.
enum Received {
    /// So many messages, after so long.
    Messages(usize, Duration),
    /// It failed, or the queue has too many messages in flight.
    Error,
    /// This receiver stops.
    Stopped,
}

/// What a receiver works with.
#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) queue: Queue,
    pub(super) drain: bool,
    pub(super) messages_per_receive: usize,
    pub(super) limiter: Arc<Limiter>,
    pub(super) pool: Arc<Pool>,
    pub(super) budget: Arc<Budget>,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) to_writers: mpsc::Sender<Vec<HeldMessage>>,
    pub(super) releases: Arc<Releases>,
    pub(super) outages: Arc<Outages>,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: Stop,
}

/// The limiter for as many receivers as are asked for.
pub(super) fn limiter(receivers: Receivers) -> Limiter {
    match receivers {
        Receivers::Auto => Limiter::adaptive(AUTO_FEW, AUTO_MOST),
        Receivers::Fixed(number) => Limiter::fixed(number),
    }
}

impl Receiver {
    /// Receives until told to stop.
    pub(super) async fn run(self) {
        let stop = &self.stop.stop_receiving;
        while stop.run_until_cancelled(self.limiter.begin()).await.is_some() {
            let mut backoff = Backoff::default();
            loop {
                let Some(reservation) = stop.run_until_cancelled(self.may_receive()).await else { return };
                let rests = match self.receive(reservation).await {
                    Received::Messages(0, _) if self.drain => {
                        let wait = backoff.next_wait().min(DRAIN_PAUSE);
                        stop.run_until_cancelled(tokio::time::sleep(wait)).await;
                        self.limiter.after_empty()
                    }
                    Received::Messages(number, took) => {
                        backoff.reset();
                        if number == self.messages_per_receive {
                            self.limiter.after_full(took)
                        } else {
                            (number == 0 || took > WAITED) && self.limiter.after_empty()
                        }
                    }
                    Received::Error => {
                        let rests = self.limiter.after_failure();
                        stop.run_until_cancelled(tokio::time::sleep(backoff.next_wait())).await;
                        rests
                    }
                    Received::Stopped => return,
                };
                if rests {
                    break;
                }
            }
        }
    }

    /// Waits until the database works and the budget has room. The database may fail during a long wait for
    /// the budget, and a receive without a database would use up a message's receive count.
    async fn may_receive(&self) -> Reservation {
        loop {
            self.pool.works().await;
            let reservation = self.budget.reserve(self.messages_per_receive).await;
            if self.pool.snapshot().works {
                return reservation;
            }
        }
    }

    /// Receives once and hands on what came.
    async fn receive(&self, reservation: Reservation) -> Received {
        let requested_at = Instant::now();
        let mut call = {
            let (queue, reservation) = (self.queue.clone(), reservation.clone());
            let (messages, wait) =
                (self.messages_per_receive, if self.drain { Duration::ZERO } else { LONG_POLL });
            Box::pin(async move { queue.receive(messages, wait, reservation).await })
        };
        let received = tokio::select! {
            received = &mut call => received,
            () = self.abandons(&reservation, requested_at) => {
                // Not with the channel to the writers, which ends with the last receiver.
                let (in_flight, tally) = (self.in_flight.clone(), self.tally.clone());
                let releases = self.releases.clone();
                self.releases.abandoned.spawn(self.outages.clone().watched(async move {
                    if let Ok(messages) = call.await {
                        releases.add(hold(messages, reservation, requested_at, &in_flight, &tally));
                    }
                }));
                return Received::Stopped;
            }
        };
        let messages = match received {
            Ok(messages) => hold(messages, reservation, requested_at, &self.in_flight, &self.tally),
            // No failure: other consumers hold what the queue can give. Receiving slows down.
            Err(error) if is_over_limit(&error) => {
                self.outages.report(&error);
                return Received::Error;
            }
            Err(error) => {
                self.tally.receive_errors.inc();
                return if self.outages.ends_on(error) { Received::Stopped } else { Received::Error };
            }
        };
        let (number, took) = (messages.len(), requested_at.elapsed());
        if number > 0 {
            tokio::select! {
                biased;
                () = self.stop.release_now.cancelled() => {
                    self.releases.add(messages);
                    return Received::Stopped;
                }
                Ok(slot) = self.to_writers.reserve() => slot.send(messages),
            }
        }
        Received::Messages(number, took)
    }

    /// Waits until a receive is abandoned: when the receiver is told to stop, or when time is up, if the answer
    /// has begun. A receive that is abandoned may still be answered, which hides messages until their
    /// visibility timeout. One that has just been sent probably brings some, so it is waited for; a long poll
    /// that has waited for a while is not. What it brings nevertheless is made visible again.
    async fn abandons(&self, reservation: &Reservation, requested_at: Instant) {
        self.stop.stop_receiving.cancelled().await;
        tokio::time::sleep_until((requested_at + ANSWERS_WITHIN).into()).await;
        if reservation.is_answered() {
            self.stop.release_now.cancelled().await;
            tokio::time::sleep(ANSWERS_WITHIN).await;
        }
    }
}
