//! Every message in flight, from its receive until it is settled: when is its visibility timeout due to
//! be renewed?

use super::budget::Permit;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// SQS: a message is hidden for 12 hours at most, counted from its receive.
const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// All messages in flight.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    bytes: usize,
    messages: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    receipt_handle: Arc<str>,
    bytes: usize,
    received: Instant,
    /// When its visibility timeout is renewed; `None` once it can no longer be renewed.
    renew_at: Option<Instant>,
}

/// What a message holds while it is in flight: its entry here and its permit, until this is dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    in_flight: Arc<InFlight>,
    number: u64,
    _permit: Permit,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut table = self.in_flight.table();
        if let Some(entry) = table.messages.remove(&self.number) {
            table.bytes -= entry.bytes;
        }
    }
}

/// A message whose visibility timeout is due to be renewed.
pub(crate) struct Due {
    number: u64,
    pub(crate) receipt_handle: Arc<str>,
}

impl InFlight {
    /// Enters a message that was received at `received` with a visibility timeout of `hidden`.
    pub(crate) fn enter(
        self: &Arc<Self>,
        receipt_handle: Arc<str>,
        bytes: usize,
        permit: Permit,
        received: Instant,
        hidden: Duration,
    ) -> Guard {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        table.bytes += bytes;
        let renew_at = (!hidden.is_zero()).then(|| received + hidden / 2);
        table.messages.insert(number, Entry { receipt_handle, bytes, received, renew_at });
        drop(table);
        Guard { in_flight: self.clone(), number, _permit: permit }
    }

    /// The messages that are due. After twelve hours a message is not renewed any more: it comes again, and
    /// is a duplicate if it has been committed meanwhile.
    pub(crate) fn due(&self, now: Instant, hidden: Duration) -> Vec<Due> {
        let mut due = Vec::new();
        for (number, entry) in &mut self.table().messages {
            if entry.renew_at.is_none_or(|at| at > now) {
                continue;
            }
            if now + hidden > entry.received + LONGEST {
                entry.renew_at = None;
                continue;
            }
            due.push(Due { number: *number, receipt_handle: entry.receipt_handle.clone() });
        }
        due
    }

    /// These were renewed at `now`.
    pub(crate) fn renewed<'a>(&self, due: impl Iterator<Item = &'a Due>, now: Instant, hidden: Duration) {
        self.update(due, Some(now + hidden / 2));
    }

    /// The queue can't renew these any more: they come again, or are gone.
    pub(crate) fn lost<'a>(&self, due: impl Iterator<Item = &'a Due>) {
        self.update(due, None);
    }

    fn update<'a>(&self, due: impl Iterator<Item = &'a Due>, renew_at: Option<Instant>) {
        let mut table = self.table();
        for due in due {
            if let Some(entry) = table.messages.get_mut(&due.number) {
                entry.renew_at = renew_at;
            }
        }
    }

    /// How many messages are in flight, and how many bytes their bodies have.
    pub(crate) fn size(&self) -> (usize, usize) {
        let table = self.table();
        (table.messages.len(), table.bytes)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;

    #[tokio::test]
    async fn a_message_is_due_at_half_time_until_twelve_hours_have_passed_or_it_is_settled() {
        let hidden = Duration::from_secs(60);
        let (in_flight, budget) = (Arc::new(InFlight::default()), Arc::new(Budget::new(10, 100)));
        let permit = budget.reserve(1).await.into_permits(&[7]).remove(0);
        let start = Instant::now();
        let guard = in_flight.enter("handle".into(), 7, permit, start, hidden);
        assert_eq!(in_flight.size(), (1, 7));
        assert!(in_flight.due(start + Duration::from_secs(29), hidden).is_empty());
        let half = start + Duration::from_secs(30);
        let due = in_flight.due(half, hidden);
        assert_eq!(due.len(), 1);
        in_flight.renewed(due.iter(), half, hidden);
        assert!(in_flight.due(start + Duration::from_secs(59), hidden).is_empty());
        assert_eq!(in_flight.due(start + LONGEST - hidden, hidden).len(), 1);
        assert!(in_flight.due(start + LONGEST - Duration::from_secs(59), hidden).is_empty());
        drop(guard);
        assert_eq!(in_flight.size(), (0, 0));
    }
}
