//! How long to wait before trying again: longer each time, and not all tasks at the same moment.

use std::time::Duration;

/// Exponential backoff with equal jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"): each wait
/// is between half of a ceiling and the ceiling, which doubles from 100 ms to 10 s.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

impl Backoff {
    /// How long to wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = FIRST.saturating_mul(2u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        jittered(ceiling)
    }

    /// It worked: the next failure counts as the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random time between half of `ceiling` and all of it.
#[must_use]
pub fn jittered(ceiling: Duration) -> Duration {
    ceiling.mul_f64(0.5 + fraction() / 2.0)
}

/// A random number between 0 and 1, not for secrets.
fn fraction() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds every RandomState differently.
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_limit_and_starts_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2);
        assert!(waits.iter().all(|wait| *wait <= LONGEST) && waits[39] >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }
}
