//! A message in flight, with the guard that it holds from its receive until it is settled: deleted, made
//! visible again, or given up because its receipt handle has expired.

use crate::message::Message;
use crate::telemetry::tally::Tally;
use flow_control::{Guard, InFlight, Reservation};
use std::sync::Arc;
use std::time::Instant;

/// A message and its guard. When this is dropped, the message is not renewed any more, and its part of the
/// budget is free.
#[derive(Debug)]
pub(super) struct HeldMessage {
    pub(super) message: Message,
    _guard: Guard,
}

/// From here on the messages that a receive brought are in flight.
pub(super) fn hold(
    messages: Vec<Message>,
    reservation: Reservation,
    requested_at: Instant,
    in_flight: &Arc<InFlight>,
    tally: &Tally,
) -> Vec<HeldMessage> {
    tally.received.inc_by(messages.len() as u64);
    let sizes: Vec<usize> = messages.iter().map(Message::size).collect();
    let permits = reservation.into_permits(&sizes);
    let hold = |(message, permit): (Message, _)| HeldMessage {
        _guard: in_flight.enter(message.receipt_handle.clone(), permit, requested_at, message.sent_at),
        message,
    };
    messages.into_iter().zip(permits).map(hold).collect()
}

/// The receipt handles of some messages, in their order.
pub(super) fn receipt_handles(messages: &[HeldMessage]) -> Vec<&str> {
    messages.iter().map(|held| &*held.message.receipt_handle).collect()
}
