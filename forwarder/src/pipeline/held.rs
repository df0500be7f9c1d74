//! What is held: every message from its receive until it is settled, to renew its visibility.

use super::room::Place;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// SQS: a message stays hidden for 12 hours at most, counted from its receive.
const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// All that is held.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Table>);

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
    /// When its visibility should be renewed; never once that is not possible any more.
    renew_at: Option<Instant>,
}

/// One message's entry: gone, and its room free, when this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    held: Arc<Held>,
    number: u64,
    _place: Place,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut table = self.held.table();
        if let Some(entry) = table.messages.remove(&self.number) {
            table.bytes -= entry.bytes;
        }
    }
}

/// A message whose visibility should be renewed.
pub(crate) struct Due {
    number: u64,
    pub(crate) receipt_handle: Arc<str>,
}

impl Held {
    /// Enters a message that was received at `received` and is hidden for `hidden` since.
    pub(crate) fn hold(
        self: &Arc<Self>,
        receipt_handle: Arc<str>,
        bytes: usize,
        place: Place,
        received: Instant,
        hidden: Duration,
    ) -> Hold {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        table.bytes += bytes;
        let renew_at = (!hidden.is_zero()).then(|| received + hidden / 2);
        table.messages.insert(number, Entry { receipt_handle, bytes, received, renew_at });
        drop(table);
        Hold { held: self.clone(), number, _place: place }
    }

    /// The messages whose visibility is due to be renewed. Past twelve hours they are let go: they
    /// come again, and are duplicates if they are committed meanwhile.
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

    /// The queue knows these no more: they come again, or are gone.
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

    /// How many messages are held, and how many bytes of bodies.
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
    use super::*;
    use crate::pipeline::room::Room;

    #[tokio::test]
    async fn is_renewed_at_half_time_until_the_twelve_hours_are_over_or_it_is_settled() {
        let hidden = Duration::from_secs(60);
        let (held, room) = (Arc::new(Held::default()), Arc::new(Room::new(10, 100)));
        let place = room.reserve(1).await.into_places(&[7]).remove(0);
        let start = Instant::now();
        let hold = held.hold("handle".into(), 7, place, start, hidden);
        assert_eq!(held.size(), (1, 7));
        assert!(held.due(start + Duration::from_secs(29), hidden).is_empty());
        let half = start + Duration::from_secs(30);
        let due = held.due(half, hidden);
        assert_eq!(due.len(), 1);
        held.renewed(due.iter(), half, hidden);
        assert!(held.due(start + Duration::from_secs(59), hidden).is_empty());
        assert_eq!(held.due(start + LONGEST - hidden, hidden).len(), 1);
        assert!(held.due(start + LONGEST - Duration::from_secs(59), hidden).is_empty());
        drop(hold);
        assert_eq!(held.size(), (0, 0));
    }
}
