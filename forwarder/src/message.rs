//! A message as SQS gives it.

use std::sync::Arc;
use std::time::SystemTime;

/// What SQS gave. The body is untouched; times and numbers are read.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) receipt_handle: Arc<str>,
    pub(crate) body: Body,
    /// The ledger takes the times of a fixed range for believable, so that every delivery of a message meets the
    /// entry of the first; only for the date of the row does the database compare the time with its own clock.
    pub(crate) sent_at: Option<SystemTime>,
    pub(crate) receive_count: Option<i32>,
    /// The `AWSTraceHeader`, for the log line if the message is quarantined.
    pub(crate) trace: Option<Box<str>>,
}

impl Message {
    /// How many bytes it has in memory.
    pub(crate) fn size(&self) -> usize {
        let trace = self.trace.as_ref().map_or(0, |trace| trace.len());
        self.id.len() + self.receipt_handle.len() + self.body.0.len() + trace
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_not_printed() {
        assert_eq!(format!("{:?}", Body(b"secret".into())), "6 bytes");
    }
}
