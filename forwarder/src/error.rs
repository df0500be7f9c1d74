//! What went wrong, and its kind, which decides what happens next. The kind is set where an error arises:
//! `queue/refusal.rs` and `database/refusal.rs` set it from the codes of SQS and PostgreSQL. At its start any
//! error but a transient one ends a forwarder. Later a forwarder tries again whatever the error is, and a drain
//! only after those that may pass (`pipeline/outage.rs`).

use std::time::Duration;

/// What an error means for the forwarder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It may pass by itself, so it is worth trying again.
    Transient,
    /// Somebody has to set something right.
    SetUp,
    /// The credentials for the queue are missing or wrong. At the start the set-up is wrong; while the
    /// forwarder runs, credentials that have expired may be renewed.
    Credentials,
    /// A drain ended before the queue was empty.
    Unfinished,
    /// A bug of the forwarder.
    Defect,
    /// A second signal, of this number, ended everything at once.
    Signal(i32),
}

impl Kind {
    /// `sysexits.h`: 69 is `EX_UNAVAILABLE`, 70 is `EX_SOFTWARE`, 75 is `EX_TEMPFAIL`, 78 is `EX_CONFIG`. A
    /// shell reports 128 and a signal's number.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Transient => 69,
            Self::Defect => 70,
            Self::Unfinished => 75,
            Self::SetUp | Self::Credentials => 78,
            Self::Signal(number) => 128u8.saturating_add(number as u8),
        }
    }

    /// Whether the error may pass by itself while the forwarder runs.
    pub(crate) fn may_pass(self) -> bool {
        matches!(self, Self::Transient | Self::Credentials)
    }
}

/// The two ends that messages are carried between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Queue,
    Database,
}

/// An error: one line that people read, and what caused it. Holds nothing from a message.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Error {
    pub(crate) kind: Kind,
    /// Whose error it is, if it is one of an end.
    pub(crate) end: Option<End>,
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: Kind, end: Option<End>, text: impl Into<String>) -> Self {
        Self { kind, end, text: text.into(), source: None }
    }

    /// An error that may pass by itself.
    pub(crate) fn transient(end: End, text: impl Into<String>) -> Self {
        Self::new(Kind::Transient, Some(end), text)
    }

    /// The database at this server, or these, took longer than this.
    pub(crate) fn silent_database(server: &str, time: Duration) -> Self {
        let text = format!(
            "the database at {server} gave no answer within {time:.0?}; if it is there, is its table locked?"
        );
        Self::transient(End::Database, text)
    }

    /// A task of the forwarder ended by a panic.
    pub(crate) fn panicked() -> Self {
        let text = "a part of the forwarder failed: this is a bug. What it held comes again after the visibility timeout";
        Self::new(Kind::Defect, None, text)
    }

    /// Keeps what caused it.
    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says what to do about it.
    pub(crate) fn with_hint(mut self, hint: &str) -> Self {
        self.text = format!("{}. {hint}", self.text.trim_end_matches('.'));
        self
    }
}
