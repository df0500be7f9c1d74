//! The budget for what is in flight: how many messages, and how many bytes of bodies.
//!
//! A receive needs permits before it is known what it brings: ten bodies may be 200 bytes or 10 MiB. It
//! reserves as many bytes as the last answers needed, so that no more receives are under way than the
//! budget allows. An answer says its length before it is read (`queue/gate.rs` looks there). If that is
//! more than was reserved, the answer is read once there are permits for it; meanwhile it waits in the
//! network, unread, and no other receive begins. So the bound holds whatever comes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// While an answer is read it is in memory twice: as it came, and as messages.
const COPIES: usize = 2;
/// What to expect while no answer is known: ten bodies of 1 MiB and what is around them.
const LARGEST_ANSWER: usize = 11 << 20;

/// The budget.
pub(crate) struct Budget {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    most_bytes: usize,
    /// How long the last answers were, in bytes; 0 while no answer is known.
    expected: AtomicUsize,
    /// Receives reserve one after the other, so that an answer does not queue behind many of them.
    reserving: tokio::sync::Mutex<()>,
    /// How many answers wait for permits.
    answers_waiting: watch::Sender<usize>,
}

/// What one receive has of the budget.
#[derive(Clone)]
pub(crate) struct Reservation(Arc<Reserved>);

struct Reserved {
    budget: Arc<Budget>,
    messages: Mutex<Option<OwnedSemaphorePermit>>,
    bytes: Mutex<Option<OwnedSemaphorePermit>>,
    length: AtomicUsize,
    answered: AtomicBool,
}

/// What one message has of the budget, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _message: Option<OwnedSemaphorePermit>,
    _bytes: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn new(messages: usize, bytes: usize) -> Self {
        let most_bytes = bytes.clamp(1, u32::MAX as usize);
        Self {
            messages: Arc::new(Semaphore::new(messages.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(most_bytes)),
            most_bytes,
            expected: AtomicUsize::new(0),
            reserving: tokio::sync::Mutex::default(),
            answers_waiting: watch::Sender::new(0),
        }
    }

    /// Waits for permits for an answer with so many messages.
    pub(crate) async fn reserve(self: &Arc<Self>, messages: usize) -> Reservation {
        let _turn = self.reserving.lock().await;
        // Neither this channel nor the semaphores are ever closed, so this can't fail.
        let _ = self.answers_waiting.subscribe().wait_for(|waiting| *waiting == 0).await;
        let messages = self.messages.clone().acquire_many_owned(messages as u32).await.ok();
        let expected = match self.expected.load(Relaxed) {
            0 => LARGEST_ANSWER,
            length => length,
        };
        let bytes = self.bytes.clone().acquire_many_owned(self.permits(expected)).await.ok();
        Reservation(Arc::new(Reserved {
            budget: self.clone(),
            messages: Mutex::new(messages),
            bytes: Mutex::new(bytes),
            length: AtomicUsize::new(0),
            answered: AtomicBool::new(false),
        }))
    }

    /// Lifts the bound on bytes at the end: answers that still wait are read, so that their messages can
    /// be made visible again.
    pub(crate) fn lift(&self) {
        const ALL: usize = 1 << 40;
        self.bytes.add_permits(ALL);
    }

    fn permits(&self, length: usize) -> u32 {
        length.saturating_mul(COPIES).min(self.most_bytes) as u32
    }
}

impl Reservation {
    /// Waits until an answer of so many bytes may be read. An answer of unknown length is read at once:
    /// SQS always says it, some emulators don't.
    pub(crate) async fn answer(&self, length: Option<usize>) {
        self.0.answered.store(true, Relaxed);
        let Some(length) = length else { return };
        self.0.length.store(length, Relaxed);
        let bytes = self.exchange(length).await;
        *self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
    }

    /// Turns the bytes that were reserved into those that are needed.
    async fn exchange(&self, length: usize) -> Option<OwnedSemaphorePermit> {
        let budget = &self.0.budget;
        let wanted = budget.permits(length);
        let mut reserved = take(&self.0.bytes)?;
        let has = reserved.num_permits() as u32;
        if let Some(more) = wanted.checked_sub(has) {
            let Ok(more) = budget.bytes.clone().try_acquire_many_owned(more) else {
                // Given back first: two that wait for permits while they hold some may wait for each other.
                drop(reserved);
                budget.answers_waiting.send_modify(|waiting| *waiting += 1);
                let _waiting = AnswerWaiting(budget);
                return budget.bytes.clone().acquire_many_owned(wanted).await.ok();
            };
            reserved.merge(more);
        } else {
            drop(reserved.split((has - wanted) as usize));
        }
        Some(reserved)
    }

    /// Whether the answer has begun, so that messages may be in it.
    pub(crate) fn is_answered(&self) -> bool {
        self.0.answered.load(Relaxed)
    }

    /// A permit for each message that came, given the sizes of their bodies. The rest is given back.
    pub(crate) fn into_permits(self, bodies: &[usize]) -> Vec<Permit> {
        if !bodies.is_empty() {
            // A large answer is remembered for a while.
            let expected = &self.0.budget.expected;
            let last = expected.load(Relaxed);
            let this = self.0.length.load(Relaxed).max(bodies.iter().sum());
            expected.store(this.max(last - last / 8).max(1), Relaxed);
        }
        let (mut messages, mut bytes) = (take(&self.0.messages), take(&self.0.bytes));
        let permit = |body: &usize| Permit {
            _message: messages.as_mut().and_then(|messages| messages.split(1)),
            _bytes: bytes.as_mut().and_then(|bytes| bytes.split((*body).min(bytes.num_permits()))),
        };
        bodies.iter().map(permit).collect()
    }
}

/// One answer that waits for permits, until this is dropped.
struct AnswerWaiting<'a>(&'a Budget);

impl Drop for AnswerWaiting<'_> {
    fn drop(&mut self) {
        self.0.answers_waiting.send_modify(|waiting| *waiting -= 1);
    }
}

fn take(permit: &Mutex<Option<OwnedSemaphorePermit>>) -> Option<OwnedSemaphorePermit> {
    permit.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn counts_the_bytes_that_come_and_is_given_back() {
        let budget = Arc::new(Budget::new(20, 100));
        let first = budget.reserve(10).await;
        first.answer(Some(30)).await;
        assert_eq!(budget.bytes.available_permits(), 100 - 30 * COPIES);
        let mut permits = first.into_permits(&[10, 15]);
        assert_eq!((budget.messages.available_permits(), budget.bytes.available_permits()), (18, 75));

        // The next expects as much; its answer is longer, and waits.
        let second = budget.reserve(10).await;
        let answer = second.clone();
        let mut answer = tokio::spawn(async move { answer.answer(Some(50)).await });
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut answer).await.is_err());
        permits.clear();
        answer.await.unwrap();
        assert_eq!(second.into_permits(&[]).len(), 0);
        assert_eq!((budget.messages.available_permits(), budget.bytes.available_permits()), (20, 100));
    }

    #[tokio::test]
    async fn an_answer_larger_than_the_budget_is_read_alone() {
        let budget = Arc::new(Budget::new(10, 100));
        let reservation = budget.reserve(10).await;
        reservation.answer(Some(1000)).await;
        let permits = reservation.into_permits(&[70, 70]);
        assert_eq!(budget.bytes.available_permits(), 0);
        drop(permits);
        assert_eq!(budget.bytes.available_permits(), 100);
    }
}
