//! A message in flight, with the guard that it holds from its receive until it is settled.

use crate::in_flight::Guard;
use crate::message::Message;

/// A message and its guard. When this is dropped, the message is not renewed any more, and its part of the
/// budget is free.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) message: Message,
    _guard: Guard,
}

impl Held {
    pub(super) fn new(message: Message, guard: Guard) -> Self {
        Self { message, _guard: guard }
    }
}

/// The receipt handles of some messages, in their order.
pub(super) fn receipt_handles(messages: &[Held]) -> Vec<&str> {
    messages.iter().map(|held| &*held.message.receipt_handle).collect()
}
