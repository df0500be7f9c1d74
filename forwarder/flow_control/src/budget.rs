//! The budget: how many messages, and how many bytes, are held at once.
//!
//! A request for messages needs permits before it is known what it brings: ten messages may have 200 bytes or
//! 10 MiB. It reserves as many bytes as the last answers needed, so that no more requests are under way than
//! the budget allows. An answer says its length before it is read. If that is more than was reserved, the
//! answer is read once there are permits for it; meanwhile it stays in the network, unread, and no other
//! request begins. So the bound holds whatever comes.

use crate::lock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// While an answer is read it is in memory twice: as it came, and as messages.
const COPIES: usize = 2;

/// The budget.
#[derive(Debug)]
pub struct Budget {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    total_bytes: usize,
    largest_answer: usize,
    /// How long the last answers were, in bytes; 0 while no answer is known.
    expected: AtomicUsize,
    /// Requests reserve one after the other, so that an answer does not queue behind many of them.
    reserving: tokio::sync::Mutex<()>,
    /// How many answers are held back, unread, until there are permits for them.
    held_back: watch::Sender<usize>,
}

/// What one request has of the budget.
#[derive(Debug, Clone)]
pub struct Reservation(Arc<Reserved>);

#[derive(Debug)]
struct Reserved {
    budget: Arc<Budget>,
    messages: Mutex<Option<OwnedSemaphorePermit>>,
    bytes: Mutex<Option<OwnedSemaphorePermit>>,
    length: AtomicUsize,
    answered: AtomicBool,
}

/// What one message has of the budget, given back when this is dropped.
#[derive(Debug)]
pub struct Permit {
    _message: Option<OwnedSemaphorePermit>,
    _bytes: Option<OwnedSemaphorePermit>,
    /// The size of the message.
    pub(crate) size: usize,
}

impl Budget {
    /// A budget of so many messages and bytes. As long as no answer is known, one is expected to have
    /// `largest_answer` bytes.
    #[must_use]
    pub fn new(messages: usize, bytes: usize, largest_answer: usize) -> Self {
        let total_bytes = bytes.clamp(1, u32::MAX as usize);
        Self {
            messages: Arc::new(Semaphore::new(messages.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(total_bytes)),
            total_bytes,
            largest_answer,
            expected: AtomicUsize::new(0),
            reserving: tokio::sync::Mutex::default(),
            held_back: watch::Sender::new(0),
        }
    }

    /// Waits for permits for a request that asks for so many messages.
    pub async fn reserve(self: &Arc<Self>, messages: usize) -> Reservation {
        let _turn = self.reserving.lock().await;
        // Neither this channel nor the semaphores are ever closed, so this can't fail.
        let _ = self.held_back.subscribe().wait_for(|held_back| *held_back == 0).await;
        let messages = self.messages.clone().acquire_many_owned(messages as u32).await.ok();
        let expected = match self.expected.load(Relaxed) {
            0 => self.largest_answer,
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

    /// Lifts the bound on bytes at the end of a program: answers that are still held back are read, so that
    /// their messages can be given back to where they came from.
    pub fn lift(&self) {
        const ALL: usize = 1 << 40;
        self.bytes.add_permits(ALL);
    }

    fn permits(&self, length: usize) -> u32 {
        length.saturating_mul(COPIES).min(self.total_bytes) as u32
    }
}

impl Reservation {
    /// Waits until an answer of so many bytes may be read. An answer of unknown length may be read at once.
    pub async fn wait_until_readable(&self, length: Option<usize>) {
        self.0.answered.store(true, Relaxed);
        let Some(length) = length else { return };
        self.0.length.store(length, Relaxed);
        let bytes = self.exchange(self.0.budget.permits(length)).await;
        *lock(&self.0.bytes) = bytes;
    }

    /// Waits until there are permits for messages of so many bytes that came: an answer of unknown length may have brought more
    /// than was reserved.
    pub async fn wait_for_room(&self, bytes: usize) {
        let needed = bytes.min(self.0.budget.total_bytes) as u32;
        let has = lock(&self.0.bytes).as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if needed as usize > has {
            let bytes = self.exchange(needed).await;
            *lock(&self.0.bytes) = bytes;
        }
    }

    /// Turns the bytes that were reserved into those that are needed.
    async fn exchange(&self, needed: u32) -> Option<OwnedSemaphorePermit> {
        let budget = &self.0.budget;
        let mut reserved = lock(&self.0.bytes).take()?;
        let has = reserved.num_permits() as u32;
        if let Some(more) = needed.checked_sub(has) {
            let Ok(more) = budget.bytes.clone().try_acquire_many_owned(more) else {
                // Given back first: two that wait for permits while they hold some may wait for each other.
                drop(reserved);
                budget.held_back.send_modify(|held_back| *held_back += 1);
                let _held_back = HeldBack(budget);
                return budget.bytes.clone().acquire_many_owned(needed).await.ok();
            };
            reserved.merge(more);
        } else {
            drop(reserved.split((has - needed) as usize));
        }
        Some(reserved)
    }

    /// Whether the answer has begun, so that messages may be in it.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.0.answered.load(Relaxed)
    }

    /// A permit for each message that came, given their sizes in bytes. The rest is given back.
    #[must_use]
    pub fn into_permits(self, sizes: &[usize]) -> Vec<Permit> {
        if !sizes.is_empty() {
            // A large answer is remembered for a while.
            let expected = &self.0.budget.expected;
            let last = expected.load(Relaxed);
            let this = self.0.length.load(Relaxed).max(sizes.iter().sum());
            expected.store(this.max(last - last / 8).max(1), Relaxed);
        }
        let (mut messages, mut bytes) = (lock(&self.0.messages).take(), lock(&self.0.bytes).take());
        let permit = |size: &usize| Permit {
            _message: messages.as_mut().and_then(|messages| messages.split(1)),
            _bytes: bytes.as_mut().and_then(|bytes| bytes.split((*size).min(bytes.num_permits()))),
            size: *size,
        };
        sizes.iter().map(permit).collect()
    }
}

/// One answer that is held back, until this is dropped.
struct HeldBack<'a>(&'a Budget);

impl Drop for HeldBack<'_> {
    fn drop(&mut self) {
        self.0.held_back.send_modify(|held_back| *held_back -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn counts_the_bytes_that_come_and_is_given_back() {
        let budget = Arc::new(Budget::new(20, 100, 1000));
        let first = budget.reserve(10).await;
        first.wait_until_readable(Some(30)).await;
        assert_eq!(budget.bytes.available_permits(), 100 - 30 * COPIES);
        let mut permits = first.into_permits(&[10, 15]);
        assert_eq!((budget.messages.available_permits(), budget.bytes.available_permits()), (18, 75));

        // The next expects as much; its answer is longer, and is held back.
        let second = budget.reserve(10).await;
        let answer = second.clone();
        let mut answer = tokio::spawn(async move { answer.wait_until_readable(Some(50)).await });
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut answer).await.is_err());
        permits.clear();
        answer.await.unwrap();
        assert_eq!(second.into_permits(&[]).len(), 0);
        assert_eq!((budget.messages.available_permits(), budget.bytes.available_permits()), (20, 100));
    }

    #[tokio::test]
    async fn what_came_in_an_answer_of_unknown_length_waits_for_room() {
        let budget = Arc::new(Budget::new(20, 100, 10));
        let first = budget.reserve(10).await;
        first.wait_until_readable(None).await;
        first.wait_for_room(90).await;
        let held = first.into_permits(&[60, 30]);
        assert_eq!(budget.bytes.available_permits(), 10);
        let next = budget.reserve(1);
        assert!(
            tokio::time::timeout(Duration::from_millis(10), next).await.is_err(),
            "20 bytes are reserved"
        );
        drop(held);
        let third = budget.reserve(1).await;
        third.wait_for_room(1000).await;
        assert_eq!(budget.bytes.available_permits(), 0);
    }

    #[tokio::test]
    async fn while_an_answer_is_held_back_no_other_request_begins() {
        let budget = Arc::new(Budget::new(20, 100, 10));
        let (first, second) = (budget.reserve(1).await, budget.reserve(1).await);
        first.wait_until_readable(Some(35)).await;
        let held_back = tokio::spawn(async move { second.wait_until_readable(Some(35)).await });
        budget.held_back.subscribe().wait_for(|held_back| *held_back == 1).await.unwrap();
        let third = tokio::time::timeout(Duration::from_millis(10), budget.reserve(1));
        assert!(third.await.is_err());
        drop(first);
        held_back.await.unwrap();
        let _third = budget.reserve(1).await;
    }

    #[tokio::test]
    async fn an_answer_larger_than_the_budget_is_read_alone() {
        let budget = Arc::new(Budget::new(10, 100, 1000));
        let reservation = budget.reserve(10).await;
        reservation.wait_until_readable(Some(1000)).await;
        let permits = reservation.into_permits(&[70, 70]);
        assert_eq!(budget.bytes.available_permits(), 0);
        drop(permits);
        assert_eq!(budget.bytes.available_permits(), 100);
    }
}
