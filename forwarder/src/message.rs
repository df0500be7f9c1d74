//! A message as SQS gives it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What SQS gave. The body is untouched; times and numbers are read.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) receipt_handle: Arc<str>,
    pub(crate) body: Body,
    pub(crate) sent_at: Option<SystemTime>,
    pub(crate) receive_count: Option<i32>,
}

/// A body: UTF-8, as far as the queue's server keeps to SQS's rules. Its debug output is its length alone, so
/// that it can't reach a log.
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    /// The body as PostgreSQL can have it in a text: UTF-8 without a NUL.
    pub(crate) fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok().filter(|text| !text.contains('\0'))
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The time that a SentTimestamp means: milliseconds since 1970, or seconds or microseconds, which old
/// emulators give; from 2001 to 5138, no number has two meanings. `None` for any other. The ledger takes the
/// times of a fixed range for believable, so that every delivery of a message meets the entry of the first;
/// only for the date of the row does the database compare the time with its own clock.
pub(crate) fn sent_at(timestamp: &str) -> Option<SystemTime> {
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

    #[test]
    fn bodies_are_not_printed() {
        assert_eq!(format!("{:?}", Body(b"secret".into())), "6 bytes");
    }
}
