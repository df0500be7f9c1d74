//! Receiving pauses while the database is out: a message that is received without being stored uses up one
//! of the receives after which SQS moves it to the dead-letter queue.

use tokio::sync::watch;

/// How many writers wait for the database.
#[derive(Debug)]
pub(super) struct Pause(watch::Sender<usize>);

/// One writer that waits, until this is dropped.
pub(super) struct Waiting<'a>(&'a Pause);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl Pause {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// A writer waits for the database until the result is dropped.
    pub(super) fn begin(&self) -> Waiting<'_> {
        self.0.send_modify(|waiting| *waiting += 1);
        Waiting(self)
    }

    /// Waits until no writer waits.
    pub(super) async fn over(&self) {
        // The sender is this one, so there is no error.
        let _ = self.0.subscribe().wait_for(|waiting| *waiting == 0).await;
    }
}
