//! Answers to receives may be large, for they hold messages; no other answer is. One that does not say its length is read
//! beside others as long as it is small. A large one has a turn, which lasts until its messages have been made room for.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

tokio::task_local! {
    /// Set while a receive is under way.
    static RECEIVE: Receive;
}

/// What a receive has; its retries have the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Receive(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

/// The turn of a receive whose answer was large and did not say its length. The next one goes on once this is dropped.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code)] Option<OwnedSemaphorePermit>); // kept to be dropped

/// Runs a call that receives messages, whose answer may be large. Without this, an answer has
/// [1 MiB](crate::limits::OTHER_BYTES) at most.
pub async fn receiving<T>(call: impl Future<Output = T>) -> (T, Turn) {
    let receive = Receive::default();
    let done = RECEIVE.scope(receive.clone(), call).await;
    (done, Turn(receive.turn().take()))
}

impl Receive {
    /// The receive that is under way, if the call is one.
    pub(crate) fn under_way() -> Option<Self> {
        RECEIVE.try_with(Self::clone).ok()
    }

    /// Waits for a turn, which the receive has until it is settled.
    pub(crate) async fn wait_for_turn(&self, turns: &Arc<Semaphore>) {
        if self.turn().is_none() {
            let turn = turns.clone().acquire_owned().await.ok(); // it is never closed
            *self.turn() = turn;
        }
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
