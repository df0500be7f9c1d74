//! Batches: messages gathered until they are many, or large, or have waited long enough.

use super::held::Held;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// When a batch is full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) messages: usize,
    /// Of all bodies. What one receive brought may be larger.
    pub(super) bytes: usize,
    pub(super) linger: Duration,
}

/// Turns what receivers send into batches. What one receive brought stays together and in order. While it is
/// in flight, a FIFO queue gives no other message of its groups, so no two batches hold messages of one
/// group, and writers that overtake each other keep the order within it.
pub(super) struct Batches {
    from: mpsc::Receiver<Vec<Held>>,
    /// What the batch has so far. Here, so that nothing is lost when [`Batches::next`] is cancelled.
    gathered: Vec<Held>,
    /// What did not fit into the batch before.
    waiting: Option<Vec<Held>>,
    limits: Limits,
}

impl Batches {
    pub(super) fn new(from: mpsc::Receiver<Vec<Held>>, limits: Limits) -> Self {
        Self { from, gathered: Vec::new(), waiting: None, limits }
    }

    /// The next batch; `None` when all receivers have ended and nothing is left.
    pub(super) async fn next(&mut self) -> Option<Vec<Held>> {
        if self.gathered.is_empty() {
            self.gathered = match self.waiting.take() {
                Some(messages) => messages,
                None => self.from.recv().await?,
            };
        }
        let deadline = Instant::now() + self.limits.linger;
        let mut bytes = bytes_of(&self.gathered);
        while self.gathered.len() < self.limits.messages && bytes < self.limits.bytes {
            // Until the deadline, or until all receivers have ended.
            let Ok(Some(messages)) = timeout_at(deadline, self.from.recv()).await else { break };
            bytes += bytes_of(&messages);
            if self.gathered.len() + messages.len() > self.limits.messages || bytes > self.limits.bytes {
                self.waiting = Some(messages);
                break;
            }
            self.gathered.extend(messages);
        }
        Some(std::mem::take(&mut self.gathered))
    }

    /// Everything that is left, now.
    pub(super) fn rest(&mut self) -> Vec<Held> {
        self.from.close();
        let mut rest = std::mem::take(&mut self.gathered);
        rest.extend(self.waiting.take().unwrap_or_default());
        while let Ok(messages) = self.from.try_recv() {
            rest.extend(messages);
        }
        rest
    }
}

fn bytes_of(messages: &[Held]) -> usize {
    messages.iter().map(|held| held.message.body.0.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_flight::{Budget, InFlight};
    use crate::message::{Body, Message};
    use std::sync::Arc;

    async fn received(sizes: &[usize]) -> Vec<Held> {
        let (budget, in_flight) = (Arc::new(Budget::new(100, 100)), Arc::new(InFlight::default()));
        let permits = budget.reserve(sizes.len()).await.into_permits(sizes);
        let held = |(bytes, permit): (&usize, _)| {
            let message = Message {
                id: String::new(),
                receipt_handle: "".into(),
                body: Body(vec![b'x'; *bytes]),
                sent_at: None,
                receive_count: None,
            };
            let now = std::time::Instant::now();
            Held::new(message, in_flight.enter("".into(), *bytes, permit, now, Duration::ZERO))
        };
        sizes.iter().zip(permits).map(held).collect()
    }

    async fn batches(limits: Limits, receives: &[&[usize]]) -> Vec<Vec<usize>> {
        let (to, from) = mpsc::channel(100);
        for sizes in receives {
            to.send(received(sizes).await).await.unwrap();
        }
        drop(to);
        let mut batches = Batches::new(from, limits);
        let mut found = Vec::new();
        while let Some(batch) = batches.next().await {
            found.push(batch.iter().map(|held| held.message.body.0.len()).collect());
        }
        found
    }

    #[tokio::test]
    async fn are_bounded_in_messages_and_bytes_and_take_receives_whole() {
        let limits = Limits { messages: 4, bytes: 100, linger: Duration::from_secs(60) };
        assert_eq!(
            batches(limits, &[&[1, 1], &[1, 1], &[1, 1, 1], &[1, 1], &[1]]).await,
            [vec![1; 4], vec![1; 3], vec![1; 3]]
        );
        assert_eq!(
            batches(limits, &[&[60], &[50], &[500, 1], &[1, 99], &[1]]).await,
            [vec![60], vec![50], vec![500, 1], vec![1, 99], vec![1]]
        );
    }

    #[tokio::test]
    async fn lose_nothing_when_gathering_is_cancelled() {
        let (to, from) = mpsc::channel(1);
        to.send(received(&[1]).await).await.unwrap();
        let limits = Limits { messages: 4, bytes: 100, linger: Duration::from_secs(3600) };
        let mut batches = Batches::new(from, limits);
        tokio::time::timeout(Duration::from_millis(20), batches.next()).await.unwrap_err();
        assert_eq!(batches.rest().len(), 1);
        drop(to);
    }

    #[tokio::test]
    async fn do_not_wait_for_ever() {
        let (to, from) = mpsc::channel(1);
        to.send(received(&[1]).await).await.unwrap();
        let limits = Limits { messages: 4, bytes: 100, linger: Duration::from_millis(1) };
        assert_eq!(Batches::new(from, limits).next().await.map(|batch| batch.len()), Some(1));
        drop(to);
    }
}
