//! The limiter of concurrent receives: how many receivers are at work.
//!
//! `auto` begins with one. Each full answer lets one more begin, so that their number doubles with every
//! round. Where more of them only make the server, or this machine, slower, answers take a multiple of the
//! quickest; then no more than a few are kept (the idea of TCP Vegas: Brakmo and Peterson, 1995). So a
//! queue in AWS gets many receivers, and an emulator on the same machine a few. A receiver that finds the
//! queue empty, or gets an error, rests: an idle queue has one long poll at a time.

use crate::config::Receivers;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The most receivers that `auto` has at work.
const AUTO_MOST: usize = 64;
/// So many may be at work however slow the answers are: the distance may be what takes the time.
const AUTO_FEW: usize = 16;
/// While an answer takes so many times as long as the quickest, no receiver is added.
const NO_MORE_AT: u32 = 10;
/// At so many times, one is taken away.
const FEWER_AT: u32 = 20;
/// For how long the quickest answer is remembered, at least; for twice as long at most.
const REMEMBERED: Duration = Duration::from_secs(300);
/// After an error no receiver is added above a few for so long: a server that cuts connections when they
/// are many would cut them again.
const FEW_FOR: Duration = Duration::from_secs(5);

/// The limiter. A receiver that has a permit is at work.
pub(super) struct Limiter {
    permits: Semaphore,
    at_work: AtomicUsize,
    least: usize,
    most: usize,
    pace: Mutex<Pace>,
}

/// How quick the last answers were.
struct Pace {
    /// The quickest since `since`, and in the period before that.
    quickest: [Duration; 2],
    since: Instant,
    failed_at: Option<Instant>,
}

impl Limiter {
    pub(super) fn new(receivers: Receivers) -> Self {
        let (least, most) = match receivers {
            Receivers::Auto => (1, AUTO_MOST),
            Receivers::Fixed(number) => (number, number),
        };
        let pace = Pace { quickest: [Duration::MAX; 2], since: Instant::now(), failed_at: None };
        let (permits, at_work) = (Semaphore::new(least), AtomicUsize::new(least));
        Self { permits, at_work, least, most, pace: Mutex::new(pace) }
    }

    /// The most receivers that can be at work.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Waits for a permit, which lasts until one of the following says that this receiver rests.
    pub(super) async fn begin(&self) {
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
    }

    /// An answer was full, after so long. `true` if this receiver rests now.
    #[must_use]
    pub(super) fn full(&self, took: Duration) -> bool {
        let quickest = self.pace().quickest(took);
        let slow = |times| took >= quickest.saturating_mul(times);
        if slow(FEWER_AT) && self.one_less(AUTO_FEW.max(self.least)) {
            return true;
        }
        let few = slow(NO_MORE_AT) || self.has_failed_lately();
        self.one_more(if few { AUTO_FEW } else { self.most });
        false
    }

    /// The queue was empty. `true` if this receiver rests now.
    #[must_use]
    pub(super) fn empty(&self) -> bool {
        self.one_less(self.least)
    }

    /// A receive failed. `true` if this receiver rests now.
    #[must_use]
    pub(super) fn failed(&self) -> bool {
        self.pace().failed_at = Some(Instant::now());
        self.one_less(self.least)
    }

    fn has_failed_lately(&self) -> bool {
        self.pace().failed_at.is_some_and(|at| at.elapsed() < FEW_FOR)
    }

    fn one_more(&self, most: usize) {
        let more = |at_work| (at_work < most.min(self.most)).then_some(at_work + 1);
        if self.at_work.fetch_update(Relaxed, Relaxed, more).is_ok() {
            self.permits.add_permits(1);
        }
    }

    /// `true` if there were more than the least.
    fn one_less(&self, least: usize) -> bool {
        let less = |at_work| (at_work > least).then(|| at_work - 1);
        self.at_work.fetch_update(Relaxed, Relaxed, less).is_ok()
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// The quickest answer that is remembered, after one that took so long.
    fn quickest(&mut self, took: Duration) -> Duration {
        let ago = self.since.elapsed();
        if ago > REMEMBERED {
            let before = if ago > 2 * REMEMBERED { Duration::MAX } else { self.quickest[0] };
            self.quickest = [Duration::MAX, before];
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

    fn at_work(limiter: &Limiter) -> usize {
        limiter.at_work.load(Relaxed)
    }

    fn grown() -> Limiter {
        let limiter = Limiter::new(Receivers::Auto);
        assert!((0..1000).all(|_| !limiter.full(QUICK)));
        limiter
    }

    #[test]
    fn auto_grows_to_a_bound_and_shrinks_to_one() {
        let limiter = grown();
        assert_eq!(limiter.permits.available_permits(), AUTO_MOST);
        assert_eq!((0..1000).filter(|_| limiter.empty()).count(), AUTO_MOST - 1);
        assert_eq!(at_work(&limiter), 1);
    }

    #[test]
    fn auto_keeps_few_where_more_only_make_answers_slower() {
        let limiter = grown();
        assert!(!limiter.full(QUICK * NO_MORE_AT));
        assert_eq!(at_work(&limiter), AUTO_MOST);
        assert!(limiter.full(QUICK * FEWER_AT) && limiter.full(QUICK * FEWER_AT));
        assert_eq!(at_work(&limiter), AUTO_MOST - 2);
        assert!(!limiter.full(QUICK * NO_MORE_AT));
        assert_eq!(at_work(&limiter), AUTO_MOST - 2);
        assert!(!limiter.full(QUICK));
        assert_eq!(at_work(&limiter), AUTO_MOST - 1);
        (0..1000).for_each(|_| _ = limiter.full(QUICK * FEWER_AT));
        assert_eq!(at_work(&limiter), AUTO_FEW);
    }

    #[test]
    fn auto_gives_a_slow_queue_a_few() {
        let limiter = Limiter::new(Receivers::Auto);
        assert!(!limiter.full(QUICK));
        (0..1000).for_each(|_| _ = limiter.full(QUICK * 10_000));
        assert_eq!(at_work(&limiter), AUTO_FEW);
    }

    #[test]
    fn auto_has_a_few_soon_after_an_error() {
        let limiter = grown();
        assert!(limiter.failed() && !limiter.full(QUICK));
        assert_eq!(at_work(&limiter), AUTO_MOST - 1);
        assert!((0..1000).filter(|_| limiter.failed()).count() > 0);
        (0..1000).for_each(|_| _ = limiter.full(QUICK));
        assert_eq!(at_work(&limiter), AUTO_FEW);
    }

    #[test]
    fn a_fixed_number_stays() {
        let limiter = Limiter::new(Receivers::Fixed(3));
        assert!(
            !limiter.full(QUICK) && !limiter.full(QUICK * 10_000) && !limiter.failed() && !limiter.empty()
        );
        assert_eq!((at_work(&limiter), limiter.permits.available_permits()), (3, 3));
    }
}
