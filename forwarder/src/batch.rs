//! Batches: messages gathered until they are many, or large, or have waited long enough.

use crate::message::Message;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// When a batch is full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) messages: usize,
    /// Of all bodies; a batch of one message may be larger.
    pub(crate) bytes: usize,
    pub(crate) linger: Duration,
}

/// Turns what receivers send into batches.
pub(crate) struct Batches {
    from: mpsc::Receiver<Vec<Message>>,
    waiting: VecDeque<Message>,
    limits: Limits,
}

impl Batches {
    pub(crate) fn new(from: mpsc::Receiver<Vec<Message>>, limits: Limits) -> Self {
        Self { from, waiting: VecDeque::new(), limits }
    }

    /// The next batch; `None` when all receivers have ended and nothing is left.
    pub(crate) async fn next(&mut self) -> Option<Vec<Message>> {
        while self.waiting.is_empty() {
            self.waiting.extend(self.from.recv().await?);
        }
        let deadline = Instant::now() + self.limits.linger;
        let mut batch = Vec::new();
        let mut bytes = 0;
        loop {
            while let Some(message) = self.waiting.front() {
                let more = bytes + message.body.0.len();
                if batch.len() == self.limits.messages || (more > self.limits.bytes && !batch.is_empty()) {
                    return Some(batch);
                }
                bytes = more;
                batch.extend(self.waiting.pop_front());
            }
            match timeout_at(deadline, self.from.recv()).await {
                Ok(Some(messages)) => self.waiting.extend(messages),
                Ok(None) | Err(_) => return Some(batch),
            }
        }
    }

    /// Everything that is left, now.
    pub(crate) fn rest(&mut self) -> Vec<Message> {
        self.from.close();
        let mut rest: Vec<Message> = self.waiting.drain(..).collect();
        while let Ok(messages) = self.from.try_recv() {
            rest.extend(messages);
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Body;

    fn message(id: usize, bytes: usize) -> Message {
        Message {
            id: id.to_string(),
            receipt_handle: String::new(),
            body: Body("x".repeat(bytes)),
            sent_at: None,
            receive_count: None,
            place: None,
        }
    }

    async fn batches(limits: Limits, sizes: &[usize]) -> Vec<Vec<usize>> {
        let (to, from) = mpsc::channel(100);
        for ten in sizes.iter().copied().enumerate().collect::<Vec<_>>().chunks(10) {
            to.send(ten.iter().map(|(id, bytes)| message(*id, *bytes)).collect()).await.unwrap();
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
    async fn are_bounded_in_messages_and_bytes_and_lose_none() {
        let limits = Limits { messages: 4, bytes: 100, linger: Duration::from_secs(60) };
        assert_eq!(batches(limits, &[1; 10]).await, [vec![1; 4], vec![1; 4], vec![1; 2]]);
        assert_eq!(
            batches(limits, &[60, 50, 500, 1, 99, 1]).await,
            [vec![60], vec![50], vec![500], vec![1, 99], vec![1]]
        );
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
