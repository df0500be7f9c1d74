//! The limiter of concurrent requests: how many workers are at work.
//!
//! An adaptive limiter begins with one. Each full answer lets one more begin, so that their number doubles
//! with every round. Where more of them only make the server, or this machine, slower, answers take a multiple
//! of the quickest; then no more than a few are kept (the idea of TCP Vegas: Brakmo and Peterson, 1995). So a
//! server far away gets many requests at once, and one on the same machine a few. A worker that finds nothing,
//! or gets an error, rests: an idle source has one request at a time.

use crate::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// While an answer takes so many times as long as the quickest, no worker is added above a few.
const NO_MORE_AT: u32 = 10;
/// At so many times, one is taken away.
const FEWER_AT: u32 = 20;
/// For how long the quickest answer is remembered, at least; for twice as long at most.
const REMEMBERED: Duration = Duration::from_secs(300);
/// After an error no worker is added above a few for so long: a server that cuts connections when they are
/// many would cut them again.
const FEW_FOR: Duration = Duration::from_secs(5);

/// The limiter. A worker that has a permit is at work.
#[derive(Debug)]
pub struct Limiter {
    permits: Semaphore,
    at_work: AtomicUsize,
    least: usize,
    few: usize,
    most: usize,
    pace: Mutex<Pace>,
}

/// How quick the last answers were.
#[derive(Debug)]
struct Pace {
    /// The quickest since `since`, and in the period before that.
    quickest: [Duration; 2],
    since: Instant,
    failed_at: Option<Instant>,
}

impl Limiter {
    /// Adapts between one worker and `most`. `few` may be at work however slow the answers are: the distance
    /// may be what takes the time.
    #[must_use]
    pub fn adaptive(few: usize, most: usize) -> Self {
        Self::new(1, few, most)
    }

    /// Always keeps so many workers at work.
    #[must_use]
    pub fn fixed(number: usize) -> Self {
        Self::new(number, number, number)
    }

    fn new(least: usize, few: usize, most: usize) -> Self {
        let pace = Pace { quickest: [Duration::MAX; 2], since: Instant::now(), failed_at: None };
        let (permits, at_work) = (Semaphore::new(least), AtomicUsize::new(least));
        Self { permits, at_work, least, few, most, pace: Mutex::new(pace) }
    }

    /// The most workers that can be at work.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many workers may be at work now.
    pub fn at_work(&self) -> usize {
        self.at_work.load(Relaxed)
    }

    /// Waits for a permit, which lasts until one of the following says that this worker rests.
    pub async fn begin(&self) {
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
    }

    /// An answer was full, and took so long. `true` if this worker rests now.
    #[must_use]
    pub fn after_full(&self, took: Duration) -> bool {
        let quickest = lock(&self.pace).quickest(took);
        let slow = |times| took >= quickest.saturating_mul(times);
        if slow(FEWER_AT) && self.one_less(self.few) {
            return true;
        }
        let few = slow(NO_MORE_AT) || self.has_failed_lately();
        self.one_more(if few { self.few } else { self.most });
        false
    }

    /// There was nothing to be had. `true` if this worker rests now.
    #[must_use]
    pub fn after_empty(&self) -> bool {
        self.one_less(self.least)
    }

    /// A request failed. `true` if this worker rests now.
    #[must_use]
    pub fn after_failure(&self) -> bool {
        lock(&self.pace).failed_at = Some(Instant::now());
        self.one_less(self.least)
    }

    fn has_failed_lately(&self) -> bool {
        lock(&self.pace).failed_at.is_some_and(|at| at.elapsed() < FEW_FOR)
    }

    fn one_more(&self, most: usize) {
        let more = |at_work| (at_work < most).then_some(at_work + 1);
        if self.at_work.fetch_update(Relaxed, Relaxed, more).is_ok() {
            self.permits.add_permits(1);
        }
    }

    /// `true` if there were more than the least.
    fn one_less(&self, least: usize) -> bool {
        let less = |at_work| (at_work > least).then(|| at_work - 1);
        self.at_work.fetch_update(Relaxed, Relaxed, less).is_ok()
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
    const FEW: usize = 16;
    const MOST: usize = 64;

    fn grown() -> Limiter {
        let limiter = Limiter::adaptive(FEW, MOST);
        assert!((0..1000).all(|_| !limiter.after_full(QUICK)));
        limiter
    }

    #[test]
    fn grows_to_a_bound_and_shrinks_to_one() {
        let limiter = grown();
        assert_eq!(limiter.permits.available_permits(), MOST);
        assert_eq!((0..1000).filter(|_| limiter.after_empty()).count(), MOST - 1);
        assert_eq!(limiter.at_work(), 1);
    }

    #[test]
    fn keeps_few_where_more_only_make_answers_slower() {
        let limiter = grown();
        assert!(!limiter.after_full(QUICK * NO_MORE_AT));
        assert_eq!(limiter.at_work(), MOST);
        assert!(limiter.after_full(QUICK * FEWER_AT) && limiter.after_full(QUICK * FEWER_AT));
        assert_eq!(limiter.at_work(), MOST - 2);
        assert!(!limiter.after_full(QUICK * NO_MORE_AT));
        assert_eq!(limiter.at_work(), MOST - 2);
        assert!(!limiter.after_full(QUICK));
        assert_eq!(limiter.at_work(), MOST - 1);
        (0..1000).for_each(|_| _ = limiter.after_full(QUICK * FEWER_AT));
        assert_eq!(limiter.at_work(), FEW);
    }

    #[test]
    fn gives_a_slow_server_a_few() {
        let limiter = Limiter::adaptive(FEW, MOST);
        assert!(!limiter.after_full(QUICK));
        (0..1000).for_each(|_| _ = limiter.after_full(QUICK * 10_000));
        assert_eq!(limiter.at_work(), FEW);
    }

    #[test]
    fn has_a_few_soon_after_an_error() {
        let limiter = grown();
        assert!(limiter.after_failure() && !limiter.after_full(QUICK));
        assert_eq!(limiter.at_work(), MOST - 1);
        assert!((0..1000).filter(|_| limiter.after_failure()).count() > 0);
        (0..1000).for_each(|_| _ = limiter.after_full(QUICK));
        assert_eq!(limiter.at_work(), FEW);
    }

    #[test]
    fn a_fixed_number_stays() {
        let limiter = Limiter::fixed(3);
        assert!(
            !limiter.after_full(QUICK)
                && !limiter.after_full(QUICK * 10_000)
                && !limiter.after_failure()
                && !limiter.after_empty()
        );
        assert_eq!((limiter.at_work(), limiter.permits.available_permits()), (3, 3));
    }
}
