//! Which time to believe a message was sent. Clocks and emulators differ: a time that can't be true
//! is not used for a date.

/// Microseconds since 1970-01-01 UTC.
pub type UnixMicros = i64;

/// Microseconds in a day.
pub const DAY: UnixMicros = 86_400_000_000;

/// 2004-11-01, when SQS began: nothing was sent before.
const FIRST: UnixMicros = 12_723 * DAY;

/// `sent_at` if it can be true at the time `now`: clocks may go ahead by a day at most.
pub fn believable(sent_at: Option<UnixMicros>, now: UnixMicros) -> Option<UnixMicros> {
    sent_at.filter(|time| (FIRST..=now.saturating_add(DAY)).contains(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn believes_times_that_can_be_true() {
        let now = 20_778 * DAY;
        for good in [FIRST, now - 14 * DAY, now, now + DAY] {
            assert_eq!(believable(Some(good), now), Some(good));
        }
        for bad in
            [None, Some(0), Some(-1), Some(FIRST - 1), Some(now + DAY + 1), Some(i64::MAX), Some(i64::MIN)]
        {
            assert_eq!(believable(bad, now), None);
        }
    }
}
