//! Room for messages: how many, and how many bytes of bodies, may be held at once.
//!
//! A receive needs room before it is known what it brings: ten bodies may be 200 bytes or 10 MiB. It
//! reserves what the last answers needed, which is about right, so that no more receives are under way
//! than there is room for. An answer says its length before it is read (`queue/gate.rs` looks there),
//! and where that is more it is read only once there is room for it; meanwhile it waits in the network,
//! and nobody else receives. So the bound holds whatever comes. (An answer that does not say its length
//! is read at once: SQS always says it, some emulators don't.)

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// An answer is there twice while it is read: as it came, and as messages.
const COPIES: usize = 2;
/// Ten bodies of 1 MiB and what is around them: what to expect while nothing is known.
const LARGEST_ANSWER: usize = 11 << 20;

/// The room there is.
pub(crate) struct Room {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    most_bytes: usize,
    /// How long answers were lately; 0 while nothing is known.
    expected: AtomicUsize,
    /// Receives reserve one after the other, so that answers need not queue behind many of them.
    reserving: tokio::sync::Mutex<()>,
    /// How many answers wait for room.
    answers_waiting: watch::Sender<usize>,
}

/// The room that one receive has.
#[derive(Clone)]
pub(crate) struct Reserved(Arc<Inner>);

struct Inner {
    room: Arc<Room>,
    messages: Mutex<Option<OwnedSemaphorePermit>>,
    bytes: Mutex<Option<OwnedSemaphorePermit>>,
    length: AtomicUsize,
    answered: AtomicBool,
}

/// The room that one message takes; free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _message: Option<OwnedSemaphorePermit>,
    _bytes: Option<OwnedSemaphorePermit>,
}

impl Room {
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

    /// Waits for room for an answer with `messages`.
    pub(crate) async fn reserve(self: &Arc<Self>, messages: usize) -> Reserved {
        let _turn = self.reserving.lock().await;
        // Neither this nor the semaphores are ever closed, so there always is a permit.
        let _ = self.answers_waiting.subscribe().wait_for(|waiting| *waiting == 0).await;
        let messages = self.messages.clone().acquire_many_owned(messages as u32).await.ok();
        let expected = match self.expected.load(Relaxed) {
            0 => LARGEST_ANSWER,
            length => length,
        };
        let bytes = self.bytes.clone().acquire_many_owned(self.permits(expected)).await.ok();
        Reserved(Arc::new(Inner {
            room: self.clone(),
            messages: Mutex::new(messages),
            bytes: Mutex::new(bytes),
            length: AtomicUsize::new(0),
            answered: AtomicBool::new(false),
        }))
    }

    /// Time is up: what has come is read, whatever room there is, to be given back.
    pub(crate) fn lift_the_bound(&self) {
        const ALL: usize = 1 << 40;
        self.bytes.add_permits(ALL);
    }

    fn permits(&self, length: usize) -> u32 {
        length.saturating_mul(COPIES).min(self.most_bytes) as u32
    }
}

impl Reserved {
    /// An answer is there and wants to be read; waits until there is room for it.
    pub(crate) async fn answer(&self, length: Option<usize>) {
        self.0.answered.store(true, Relaxed);
        let Some(length) = length else { return };
        self.0.length.store(length, Relaxed);
        let bytes = self.fit(length).await;
        *self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
    }

    /// Turns what is reserved into what is needed.
    async fn fit(&self, length: usize) -> Option<OwnedSemaphorePermit> {
        let room = &self.0.room;
        let wanted = room.permits(length);
        let mut reserved = take(&self.0.bytes)?;
        let has = reserved.num_permits() as u32;
        if let Some(more) = wanted.checked_sub(has) {
            let Ok(more) = room.bytes.clone().try_acquire_many_owned(more) else {
                // Given back first: who waits for room and has some at the same time may wait for ever.
                drop(reserved);
                room.answers_waiting.send_modify(|waiting| *waiting += 1);
                let _waits = Waits(room);
                return room.bytes.clone().acquire_many_owned(wanted).await.ok();
            };
            reserved.merge(more);
        } else {
            drop(reserved.split((has - wanted) as usize));
        }
        Some(reserved)
    }

    /// Whether the queue has answered, so that messages may be on their way.
    pub(crate) fn is_answered(&self) -> bool {
        self.0.answered.load(Relaxed)
    }

    /// Places for the messages that came, given the sizes of their bodies; other room is free again.
    pub(crate) fn into_places(self, bodies: &[usize]) -> Vec<Place> {
        if !bodies.is_empty() {
            // Large ones are remembered for a while.
            let expected = &self.0.room.expected;
            let last = expected.load(Relaxed);
            let this = self.0.length.load(Relaxed).max(bodies.iter().sum());
            expected.store(this.max(last - last / 8).max(1), Relaxed);
        }
        let (mut messages, mut bytes) = (take(&self.0.messages), take(&self.0.bytes));
        let place = |body: &usize| Place {
            _message: messages.as_mut().and_then(|messages| messages.split(1)),
            _bytes: bytes.as_mut().and_then(|bytes| bytes.split((*body).min(bytes.num_permits()))),
        };
        bodies.iter().map(place).collect()
    }
}

/// One answer that waits, until this is dropped.
struct Waits<'a>(&'a Room);

impl Drop for Waits<'_> {
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
    async fn is_taken_by_the_bytes_that_come_and_given_back() {
        let room = Arc::new(Room::new(20, 100));
        let first = room.reserve(10).await;
        first.answer(Some(30)).await;
        assert_eq!(room.bytes.available_permits(), 100 - 30 * COPIES);
        let mut places = first.into_places(&[10, 15]);
        assert_eq!((room.messages.available_permits(), room.bytes.available_permits()), (18, 75));

        // The next expects as much; its answer is longer, and waits for room.
        let second = room.reserve(10).await;
        let answer = second.clone();
        let mut answer = tokio::spawn(async move { answer.answer(Some(50)).await });
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut answer).await.is_err());
        places.clear();
        answer.await.unwrap();
        assert_eq!(second.into_places(&[]).len(), 0);
        assert_eq!((room.messages.available_permits(), room.bytes.available_permits()), (20, 100));
    }

    #[tokio::test]
    async fn an_answer_larger_than_all_room_is_read_alone() {
        let room = Arc::new(Room::new(10, 100));
        let reserved = room.reserve(10).await;
        reserved.answer(Some(1000)).await;
        let places = reserved.into_places(&[70, 70]);
        assert_eq!(room.bytes.available_permits(), 0);
        drop(places);
        assert_eq!(room.bytes.available_permits(), 100);
    }
}
