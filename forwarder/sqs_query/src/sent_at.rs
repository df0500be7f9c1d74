//! When a message was sent, as SQS and its emulators write it.

use std::time::{Duration, SystemTime};

/// The time that a `SentTimestamp` means: milliseconds since 1970, or seconds or microseconds, which old emulators
/// give; from 2001 to 5138, no number has two meanings. `None` for any other.
pub fn sent_at(timestamp: &str) -> Option<SystemTime> {
    let number = timestamp.trim().parse::<f64>().ok()? as u64; // saturates; no number becomes 0
    let since_1970 = match number {
        1_000_000_000..100_000_000_000 => Duration::from_secs(number),
        1_000_000_000_000..100_000_000_000_000 => Duration::from_millis(number),
        1_000_000_000_000_000..100_000_000_000_000_000 => Duration::from_micros(number),
        _ => return None,
    };
    SystemTime::UNIX_EPOCH.checked_add(since_1970)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_times_are_of_a_known_unit_or_nothing() {
        let at = |millis| Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(sent_at("1795248000123"), at(1_795_248_000_123));
        assert_eq!(sent_at("1795248000"), at(1_795_248_000_000));
        assert_eq!(sent_at("1795248000.5"), at(1_795_248_000_000));
        assert_eq!(sent_at("1795248000123000"), at(1_795_248_000_123));
        for nonsense in ["", "x", "0", "-1", "-1795248000123", "NaN", "inf", "1795248000123000000", "12345"] {
            assert_eq!(sent_at(nonsense), None, "{nonsense}");
        }
    }
}
