//! Texts that are printed once in a while, however often something happens.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets the same text through once in a period, and no more than so many different texts.
#[derive(Debug)]
pub struct Throttle {
    period: Duration,
    most: usize,
    /// Which texts were let through when.
    seen: Mutex<HashMap<String, Instant>>,
}

impl Throttle {
    /// Lets through a text once in a period, and at most so many texts in it.
    #[must_use]
    pub fn new(period: Duration, most: usize) -> Self {
        Self { period, most, seen: Mutex::default() }
    }

    /// Whether this text is to be printed now.
    pub fn lets_through(&self, text: &str) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, at| at.elapsed() < self.period);
        let is_new = seen.len() < self.most && !seen.contains_key(text);
        if is_new {
            seen.insert(text.to_owned(), Instant::now());
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_comes_once_in_a_period_and_texts_are_bounded() {
        let throttle = Throttle::new(Duration::from_secs(3600), 2);
        let let_through = ["a", "a", "b", "a", "c"].map(|text| throttle.lets_through(text));
        assert_eq!(let_through, [true, false, true, false, false]);
        let throttle = Throttle::new(Duration::ZERO, 1);
        assert!(throttle.lets_through("a") && throttle.lets_through("a") && throttle.lets_through("b"));
    }
}
