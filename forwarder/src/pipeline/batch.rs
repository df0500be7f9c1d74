//! Batches: messages gathered until they are many, or large, or have waited long enough.

use super::held::HeldMessage;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// When a batch is full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) messages: usize,
    /// Of all ids and bodies. What one receive brought may be larger.
    pub(super) bytes: usize,
    pub(super) linger: Duration,
}

/// Turns what receivers send into batches. What one receive brought stays together and in order. While it is
/// in flight, a FIFO queue gives no other message of its groups, so no two batches hold messages of one
/// group, and writers that overtake each other keep the order within it.
pub(super) struct Batches {
    from_receivers: mpsc::Receiver<Vec<HeldMessage>>,
    /// What the batch has so far. Here, so that nothing is lost when [`Batches::next`] is cancelled.
    gathered: Vec<HeldMessage>,
    /// What did not fit into the batch before.
    did_not_fit: Option<Vec<HeldMessage>>,
    limits: Limits,
}

impl Batches {
    pub(super) fn new(from_receivers: mpsc::Receiver<Vec<HeldMessage>>, limits: Limits) -> Self {
        Self { from_receivers, gathered: Vec::new(), did_not_fit: None, limits }
    }

    /// The next batch; `None` when all receivers have ended and nothing is left.
    pub(super) async fn next(&mut self) -> Option<Vec<HeldMessage>> {
        if self.gathered.is_empty() {
            self.gathered = match self.did_not_fit.take() {
                Some(messages) => messages,
                None => self.from_receivers.recv().await?,
            };
        }
        let deadline = Instant::now() + self.limits.linger;
        let mut bytes = bytes_of(&self.gathered);
        while self.gathered.len() < self.limits.messages && bytes < self.limits.bytes {
            // Until the deadline, or until all receivers have ended.
            let Ok(Some(messages)) = timeout_at(deadline, self.from_receivers.recv()).await else { break };
            bytes += bytes_of(&messages);
            if self.gathered.len() + messages.len() > self.limits.messages || bytes > self.limits.bytes {
                self.did_not_fit = Some(messages);
                break;
            }
            self.gathered.extend(messages);
        }
        Some(std::mem::take(&mut self.gathered))
    }

    /// Everything that is left, now.
    pub(super) fn rest(&mut self) -> Vec<HeldMessage> {
        self.from_receivers.close();
        let mut rest = std::mem::take(&mut self.gathered);
        rest.extend(self.did_not_fit.take().unwrap_or_default());
        while let Ok(messages) = self.from_receivers.try_recv() {
            rest.extend(messages);
        }
        rest
    }
}

fn bytes_of(messages: &[HeldMessage]) -> usize {
    messages.iter().map(|held| held.message.id.len() + held.message.body.0.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Body, Message};
    use crate::pipeline::held::hold;
    use crate::telemetry::tally::Tally;
    use flow_control::{Budget, InFlight};
    use std::sync::Arc;

    async fn received(sizes: &[usize]) -> Vec<HeldMessage> {
        let budget = Arc::new(Budget::new(100, 100, 100));
        let message = |bytes: &usize| Message {
            id: String::new(),
            receipt_handle: "".into(),
            body: Body(vec![b'x'; *bytes]),
            sent_at: None,
            receive_count: None,
            trace: None,
        };
        let in_flight = Arc::new(InFlight::new(Duration::ZERO, Duration::ZERO));
        let reservation = budget.reserve(sizes.len()).await;
        let messages = sizes.iter().map(message).collect();
        hold(messages, reservation, std::time::Instant::now(), &in_flight, &Tally::new())
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
