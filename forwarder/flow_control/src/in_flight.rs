//! The table of what is in flight: every message from its receive until its guard is dropped, and when its
//! lease is due to be renewed.

use crate::budget::Permit;
use crate::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Notify;

/// All messages in flight.
#[derive(Debug)]
pub struct InFlight {
    /// For how long a message is leased, from its receive or its last renewal on.
    lease: Duration,
    /// For how long it can be leased altogether, from its receive on.
    longest: Duration,
    table: Mutex<Table>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    bytes: usize,
    messages: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    handle: Arc<str>,
    size: usize,
    sent_at: Option<SystemTime>,
    requested_at: Instant,
    /// When its lease is renewed; `None` once it can no longer be renewed.
    renew_at: Option<Instant>,
}

/// What a message holds while it is in flight: its entry in the table and its permit, until this is dropped.
#[derive(Debug)]
pub struct Guard {
    in_flight: Arc<InFlight>,
    number: u64,
    _permit: Permit,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut table = lock(&self.in_flight.table);
        if let Some(entry) = table.messages.remove(&self.number) {
            table.bytes -= entry.size;
        }
        if table.messages.is_empty() {
            self.in_flight.emptied.notify_one();
        }
    }
}

/// A message whose lease is due to be renewed.
#[derive(Debug)]
pub struct Due {
    number: u64,
    /// What its source calls it.
    pub handle: Arc<str>,
}

impl InFlight {
    /// An empty table for messages that are leased for `lease` each time, and for `longest` at most.
    #[must_use]
    pub fn new(lease: Duration, longest: Duration) -> Self {
        Self { lease, longest, table: Mutex::default(), emptied: Notify::new() }
    }

    /// Enters a message that was received. Its lease may have begun as early as it was requested; it was sent at
    /// this time, if that is known.
    pub fn enter(
        self: &Arc<Self>,
        handle: Arc<str>,
        permit: Permit,
        requested_at: Instant,
        sent_at: Option<SystemTime>,
    ) -> Guard {
        let (size, renew_at) = (permit.size, Some(requested_at + self.lease / 2));
        let mut table = lock(&self.table);
        table.last += 1;
        let number = table.last;
        table.bytes += size;
        table.messages.insert(number, Entry { handle, size, sent_at, requested_at, renew_at });
        drop(table);
        Guard { in_flight: self.clone(), number, _permit: permit }
    }

    /// The messages that are due: half of their lease has passed. One that has been leased for the longest
    /// time is not renewed any more.
    pub fn due(&self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        for (number, entry) in &mut lock(&self.table).messages {
            if entry.renew_at.is_none_or(|at| at > now) {
                continue;
            }
            if now + self.lease > entry.requested_at + self.longest {
                entry.renew_at = None;
                continue;
            }
            due.push(Due { number: *number, handle: entry.handle.clone() });
        }
        due
    }

    /// A message's lease was renewed at this time; with `None`, it can't be renewed any more. What is not
    /// reported here is due again.
    pub fn renewed(&self, due: &Due, at: Option<Instant>) {
        if let Some(entry) = lock(&self.table).messages.get_mut(&due.number) {
            entry.renew_at = at.map(|at| at + self.lease / 2);
        }
    }

    /// How many messages are in flight, and how many bytes they have.
    pub fn size(&self) -> (usize, usize) {
        let table = lock(&self.table);
        (table.messages.len(), table.bytes)
    }

    /// Waits until the last message in flight is settled, which it may have been since this was called before. For
    /// one task that waits.
    pub async fn emptied(&self) {
        self.emptied.notified().await;
    }

    /// When the oldest of the messages in flight was sent, if there are any.
    pub fn oldest(&self) -> Option<SystemTime> {
        lock(&self.table).messages.values().filter_map(|entry| entry.sent_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    const LONGEST: Duration = Duration::from_secs(12 * 3600);

    async fn enter(in_flight: &Arc<InFlight>, requested_at: Instant) -> Guard {
        enter_sent(in_flight, requested_at, None).await
    }

    async fn enter_sent(
        in_flight: &Arc<InFlight>,
        requested_at: Instant,
        sent_at: Option<SystemTime>,
    ) -> Guard {
        let budget = Arc::new(Budget::new(10, 100, 10));
        let permit = budget.reserve(1).await.into_permits(&[7]).remove(0);
        in_flight.enter("handle".into(), permit, requested_at, sent_at)
    }

    #[tokio::test]
    async fn a_message_is_due_at_half_time_until_the_longest_time_has_passed_or_it_is_settled() {
        let lease = Duration::from_secs(60);
        let in_flight = Arc::new(InFlight::new(lease, LONGEST));
        let start = Instant::now();
        let guard = enter(&in_flight, start).await;
        assert_eq!(in_flight.size(), (1, 7));
        assert!(in_flight.due(start + Duration::from_secs(29)).is_empty());
        let half = start + Duration::from_secs(30);
        let due = in_flight.due(half);
        assert_eq!(due.len(), 1);
        in_flight.renewed(&due[0], Some(half));
        assert!(in_flight.due(start + Duration::from_secs(59)).is_empty());
        assert_eq!(in_flight.due(start + LONGEST - lease).len(), 1);
        assert!(in_flight.due(start + LONGEST - Duration::from_secs(59)).is_empty());
        drop(guard);
        assert_eq!(in_flight.size(), (0, 0));
    }

    #[tokio::test]
    async fn a_message_that_was_not_renewed_stays_due_and_a_lost_one_does_not() {
        let in_flight = Arc::new(InFlight::new(Duration::from_secs(60), LONGEST));
        let start = Instant::now();
        let _guard = enter(&in_flight, start).await;
        let half = start + Duration::from_secs(30);
        let due = in_flight.due(half);
        assert_eq!(in_flight.due(half).len(), 1);
        in_flight.renewed(&due[0], None);
        assert!(in_flight.due(start + LONGEST / 2).is_empty());
        assert_eq!(in_flight.size(), (1, 7));
    }

    #[tokio::test]
    async fn the_oldest_is_the_one_that_was_sent_first_until_it_is_settled() {
        let in_flight = Arc::new(InFlight::new(LONGEST, LONGEST));
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let now = Instant::now();
        let _unknown = enter(&in_flight, now).await;
        assert_eq!(in_flight.oldest(), None);
        let _young = enter_sent(&in_flight, now, at(7)).await;
        let old = enter_sent(&in_flight, now, at(5)).await;
        assert_eq!(in_flight.oldest(), at(5));
        drop(old);
        assert_eq!(in_flight.oldest(), at(7));
    }
}
