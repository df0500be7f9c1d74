//! Batches: messages gathered until they are many, or large, or have waited long enough.

use crate::message::Message;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// When a batch is full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) messages: usize,
    /// Of all bodies; what one receive brought may be larger.
    pub(crate) bytes: usize,
    pub(crate) linger: Duration,
}

/// Turns what receivers send into batches. What one receive brought stays together and in order: of a
/// FIFO queue's group no other receive has any, so no two batches ever hold messages of one group, and
/// writers that overtake each other leave the order within it as it is.
pub(crate) struct Batches {
    from: mpsc::Receiver<Vec<Message>>,
    /// What the batch has so far. Here, so that nothing is lost when nobody waits for it any more.
    gathered: Vec<Message>,
    /// What did not go into the batch before.
    waiting: Option<Vec<Message>>,
    limits: Limits,
}

impl Batches {
    pub(crate) fn new(from: mpsc::Receiver<Vec<Message>>, limits: Limits) -> Self {
        Self { from, gathered: Vec::new(), waiting: None, limits }
    }

    /// The next batch; `None` when all receivers have ended and nothing is left.
    pub(crate) async fn next(&mut self) -> Option<Vec<Message>> {
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
    pub(crate) fn rest(&mut self) -> Vec<Message> {
        self.from.close();
        let mut rest = std::mem::take(&mut self.gathered);
        rest.extend(self.waiting.take().unwrap_or_default());
        while let Ok(messages) = self.from.try_recv() {
            rest.extend(messages);
        }
        rest
    }
}

fn bytes_of(messages: &[Message]) -> usize {
    messages.iter().map(|message| message.body.0.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Body;

    fn message(id: usize, bytes: usize) -> Message {
        Message {
            id: id.to_string(),
            receipt_handle: "".into(),
            body: Body("x".repeat(bytes)),
            sent_at: None,
            receive_count: None,
            hold: None,
        }
    }

    async fn batches(limits: Limits, receives: &[&[usize]]) -> Vec<Vec<usize>> {
        let (to, from) = mpsc::channel(100);
        for sizes in receives {
            to.send(sizes.iter().map(|bytes| message(0, *bytes)).collect()).await.unwrap();
        }
        drop(to);
        let mut batches = Batches::new(from, limits);
        let mut found = Vec::new();
        while let Some(batch) = batches.next().await {
            found.push(batch.iter().map(|message| message.body.0.len()).collect());
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

    /// Time may be up in the midst of it.
    #[tokio::test]
    async fn lose_nothing_that_nobody_waits_for() {
        let (to, from) = mpsc::channel(1);
        to.send(vec![message(0, 1)]).await.unwrap();
        let limits = Limits { messages: 4, bytes: 100, linger: Duration::from_secs(3600) };
        let mut batches = Batches::new(from, limits);
        tokio::time::timeout(Duration::from_millis(20), batches.next()).await.unwrap_err();
        assert_eq!(batches.rest().len(), 1);
        drop(to);
    }

    #[tokio::test]
    async fn do_not_wait_for_ever() {
        let (to, from) = mpsc::channel(1);
        to.send(vec![message(0, 1)]).await.unwrap();
        let limits = Limits { messages: 4, bytes: 100, linger: Duration::from_millis(1) };
        assert_eq!(Batches::new(from, limits).next().await.map(|batch| batch.len()), Some(1));
        drop(to);
    }
}
