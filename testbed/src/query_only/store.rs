//! The messages of a queue, with visibility time-outs and receipt handles as SQS has them.

use std::time::{Duration, Instant, SystemTime};

/// A queue.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) name: String,
    messages: Vec<Stored>,
    sent: u64,
    handles: u64,
}

/// A message in it.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) id: String,
    pub(super) body: String,
    pub(super) sent_at: SystemTime,
    pub(super) receive_count: u32,
    pub(super) receipt_handle: String,
    visible_at: Instant,
}

impl Store {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), messages: Vec::new(), sent: 0, handles: 0 }
    }

    /// The queue's URL: its host does not resolve, as with servers in a container.
    pub(super) fn url(&self) -> String {
        format!("http://queue.invalid:4576{}", self.path())
    }

    pub(super) fn path(&self) -> String {
        format!("/000000000000/{}", self.name)
    }

    pub(super) fn send(&mut self, body: &str) {
        self.sent += 1;
        self.messages.push(Stored {
            id: format!("00000000-0000-4000-8000-{:012x}", self.sent),
            body: body.to_owned(),
            sent_at: SystemTime::now(),
            receive_count: 0,
            receipt_handle: String::new(),
            visible_at: Instant::now(),
        });
    }

    pub(super) fn receive(&mut self, most: usize, hidden_for: Duration) -> Vec<Stored> {
        let now = Instant::now();
        let visible = self.messages.iter_mut().filter(|message| message.visible_at <= now).take(most);
        let mut received = Vec::new();
        for message in visible {
            self.handles += 1;
            message.receive_count += 1;
            message.visible_at = now + hidden_for;
            message.receipt_handle = format!("handle/{}+{}==", message.id, self.handles);
            received.push(message.clone());
        }
        received
    }

    /// Whether there was a message with this handle, the newest of its own.
    pub(super) fn delete(&mut self, handle: &str) -> bool {
        let before = self.messages.len();
        self.messages.retain(|message| message.receipt_handle != handle);
        self.messages.len() < before
    }

    /// Whether a message in flight has this handle.
    pub(super) fn hide(&mut self, handle: &str, hidden_for: Duration) -> bool {
        let now = Instant::now();
        let in_flight = self.messages.iter_mut().find(|m| m.receipt_handle == handle && m.visible_at > now);
        match in_flight {
            Some(message) => {
                message.visible_at = now + hidden_for;
                true
            }
            None => false,
        }
    }

    /// How many messages are visible and in flight.
    pub(super) fn depth(&self) -> [usize; 2] {
        let now = Instant::now();
        let visible = self.messages.iter().filter(|message| message.visible_at <= now).count();
        [visible, self.messages.len() - visible]
    }
}
