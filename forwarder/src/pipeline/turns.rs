//! How many receivers are at work: those that have a turn.
//!
//! `auto` begins with one. Each full answer that comes quickly lets one more begin, so that they double
//! with every round. Where more of them only make the server, or this machine, slower, answers take a
//! multiple of the quickest: then no more begin, and some rest (the idea of TCP Vegas: Brakmo and
//! Peterson, 1995). So a queue in AWS gets many receivers, an emulator on a desk a few. One that finds the
//! queue empty, or out of order, rests too: an idle queue has one long poll at a time.

use crate::config::Receivers;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The most receivers that `auto` has at work.
const AUTO_MOST: usize = 64;
/// An answer that takes so many times as long as the quickest is slow enough: no more receivers.
const NO_MORE_AT: u32 = 10;
/// And at so many times, fewer.
const FEWER_AT: u32 = 20;
/// For how long the quickest answer is remembered, at least; twice as long at most.
const REMEMBERED: Duration = Duration::from_secs(300);
/// After an error no receiver is added for so long: what cuts connections when there are many would cut
/// them again at once.
const NO_MORE_FOR: Duration = Duration::from_secs(5);

/// Who may receive.
pub(super) struct Turns {
    waiting: Semaphore,
    at_work: AtomicUsize,
    least: usize,
    most: usize,
    pace: Mutex<Pace>,
}

/// What answers were like lately.
struct Pace {
    /// The quickest since `since`, and in the while before that.
    quickest: [Duration; 2],
    since: Instant,
    failed_at: Option<Instant>,
}

impl Turns {
    pub(super) fn new(receivers: Receivers) -> Self {
        let (least, most) = match receivers {
            Receivers::Auto => (1, AUTO_MOST),
            Receivers::Fixed(number) => (number, number),
        };
        let pace = Pace { quickest: [Duration::MAX; 2], since: Instant::now(), failed_at: None };
        let (waiting, at_work) = (Semaphore::new(least), AtomicUsize::new(least));
        Self { waiting, at_work, least, most, pace: Mutex::new(pace) }
    }

    /// The most receivers that can have a turn.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Waits for a turn, which lasts until one of the following says that this receiver rests.
    pub(super) async fn begin(&self) {
        if let Ok(turn) = self.waiting.acquire().await {
            turn.forget();
        }
    }

    /// An answer was full, after so long.
    pub(super) fn full(&self, took: Duration) -> bool {
        let quickest = self.pace().quickest(took);
        if took >= quickest.saturating_mul(FEWER_AT) {
            return self.one_less();
        }
        if took < quickest.saturating_mul(NO_MORE_AT) && !self.has_failed_lately() {
            self.one_more();
        }
        false
    }

    /// The queue was empty.
    pub(super) fn empty(&self) -> bool {
        self.one_less()
    }

    /// A receive failed.
    pub(super) fn failed(&self) -> bool {
        self.pace().failed_at = Some(Instant::now());
        self.one_less()
    }

    fn has_failed_lately(&self) -> bool {
        self.pace().failed_at.is_some_and(|at| at.elapsed() < NO_MORE_FOR)
    }

    fn one_more(&self) {
        let more = |at_work| (at_work < self.most).then_some(at_work + 1);
        if self.at_work.fetch_update(Relaxed, Relaxed, more).is_ok() {
            self.waiting.add_permits(1);
        }
    }

    /// Whether there was one too many.
    fn one_less(&self) -> bool {
        let less = |at_work| (at_work > self.least).then(|| at_work - 1);
        self.at_work.fetch_update(Relaxed, Relaxed, less).is_ok()
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// The quickest answer that is remembered, with one that took so long.
    fn quickest(&mut self, took: Duration) -> Duration {
        if self.since.elapsed() > REMEMBERED {
            self.quickest = [Duration::MAX, self.quickest[0]];
            self.since = Instant::now();
        }
        self.quickest[0] = self.quickest[0].min(took);
        self.quickest[0].min(self.quickest[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(2);

    fn at_work(turns: &Turns) -> usize {
        turns.at_work.load(Relaxed)
    }

    fn grown() -> Turns {
        let turns = Turns::new(Receivers::Auto);
        assert!((0..1000).all(|_| !turns.full(QUICK)));
        turns
    }

    #[test]
    fn auto_grows_to_a_bound_and_shrinks_to_one() {
        let turns = grown();
        assert_eq!(turns.waiting.available_permits(), AUTO_MOST);
        assert_eq!((0..1000).filter(|_| turns.empty()).count(), AUTO_MOST - 1);
        assert_eq!(at_work(&turns), 1);
    }

    #[test]
    fn auto_does_not_wait_in_a_queue_before_the_queue() {
        let turns = grown();
        assert!(!turns.full(QUICK * NO_MORE_AT));
        assert_eq!(at_work(&turns), AUTO_MOST);
        assert!(turns.full(QUICK * FEWER_AT) && turns.full(QUICK * FEWER_AT));
        assert_eq!(at_work(&turns), AUTO_MOST - 2);
        assert!(!turns.full(QUICK * NO_MORE_AT));
        assert_eq!(at_work(&turns), AUTO_MOST - 2);
        assert!(!turns.full(QUICK));
        assert_eq!(at_work(&turns), AUTO_MOST - 1);
    }

    #[test]
    fn auto_does_not_grow_soon_after_an_error() {
        let turns = grown();
        assert!(turns.failed() && !turns.full(QUICK));
        assert_eq!(at_work(&turns), AUTO_MOST - 1);
    }

    #[test]
    fn a_fixed_number_stays() {
        let turns = Turns::new(Receivers::Fixed(3));
        assert!(!turns.full(QUICK) && !turns.full(QUICK * 100) && !turns.failed() && !turns.empty());
        assert_eq!((at_work(&turns), turns.waiting.available_permits()), (3, 3));
    }
}
