//! Which time to believe a message was sent. Clocks and emulators differ: a time that can't be true
//! is not used for a date, nor to find a message in the ledger.

/// Microseconds since 1970-01-01 UTC.
pub type UnixMicros = i64;

/// Microseconds in a day.
pub const DAY: UnixMicros = 86_400_000_000;

/// 2004-11-01, when SQS began: nothing was sent before.
const FIRST: UnixMicros = 12_723 * DAY;

/// 9999-12-31, the last day that everybody can write.
const LAST: UnixMicros = 2_932_896 * DAY;

/// `sent_at` if it can be true at the time `now`: clocks may go ahead by a day at most.
pub fn believable(sent_at: Option<UnixMicros>, now: UnixMicros) -> Option<UnixMicros> {
    sent_at.filter(|time| (FIRST..=now.saturating_add(DAY)).contains(time))
}

/// `sent_at` if it can be true at any time. It does not depend on a clock: two deliveries of one message,
/// with the same time of sending, have the same answer.
pub fn possible(sent_at: Option<UnixMicros>) -> Option<UnixMicros> {
    sent_at.filter(|time| (FIRST..=LAST).contains(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn believes_times_that_can_be_true() {
        let now = 20_778 * DAY;
        for good in [FIRST, now - 14 * DAY, now, now + DAY] {
            assert_eq!(believable(Some(good), now), Some(good));
            assert_eq!(possible(Some(good)), Some(good));
        }
        for bad in
            [None, Some(0), Some(-1), Some(FIRST - 1), Some(now + DAY + 1), Some(i64::MAX), Some(i64::MIN)]
        {
            assert_eq!(believable(bad, now), None);
        }
        for bad in [None, Some(0), Some(FIRST - 1), Some(LAST + 1), Some(i64::MAX), Some(i64::MIN)] {
            assert_eq!(possible(bad), None);
        }
        assert_eq!(possible(Some(LAST)), Some(LAST));
    }
}
