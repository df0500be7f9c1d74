//! Why there is no connection.

use std::fmt::Write;
use tokio_postgres::error::SqlState;

/// Why there is no connection, and what to do about it. Holds no password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not shown: it may hold a password.
    #[error("the database URL can't be read; it looks like postgresql://user@host:port/database")]
    Url,
    /// A second @ before the parameters: with it, a part of a password would be taken for a host.
    #[error(
        "the database URL has an @ too many. Write an @ that belongs to the password or another part as %40, or give the password in PGPASSWORD."
    )]
    UnescapedAt,
    /// A % without two hexadecimal digits, or bytes that are no UTF-8.
    #[error(
        "the database URL has a % that begins no character. Write a % that belongs to the password or another part as %25, or give the password in PGPASSWORD."
    )]
    UnescapedPercent,
    /// A setting is wrong, or a file that it names.
    #[error("{0}")]
    Setting(String),
    /// The server was reached, and is not what the settings ask for.
    #[error("{what}")]
    Mismatch {
        /// What happened, and what to do.
        what: String,
        /// What TLS or tokio-postgres says, if they said anything.
        source: Option<Cause>,
    },
    /// The server refused.
    #[error("the database {what}")]
    Refused {
        /// What happened, and what to do.
        what: String,
        /// The server's error.
        source: tokio_postgres::Error,
    },
    /// The server could not be reached, or is of no use at the moment.
    #[error("the database {what}")]
    Unavailable {
        /// What happened.
        what: String,
        /// What the network or tokio-postgres says, if they said anything in time.
        source: Option<Cause>,
    },
}

/// An error of the libraries that this one uses.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What an error means for whoever wants a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It may pass by itself.
    Transient,
    /// Role, password or certificate are not accepted.
    Credentials,
    /// The settings, the server or the database have to be set right.
    SetUp,
}

impl Error {
    /// What it means.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Url
            | Self::UnescapedAt
            | Self::UnescapedPercent
            | Self::Setting(_)
            | Self::Mismatch { .. } => Kind::SetUp,
            Self::Unavailable { .. } => Kind::Transient,
            // Classes 28: who; 3D: which database; 42: rights; 0A: what the server does not know.
            Self::Refused { source, .. } => match source.code().and_then(|code| code.code().get(..2)) {
                Some("28") => Kind::Credentials,
                Some("3D" | "3F" | "42" | "F0" | "0A") => Kind::SetUp,
                _ => Kind::Transient,
            },
        }
    }

    /// The server's error code, if it is the server that refused.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Refused { source, .. } => source.code(),
            _ => None,
        }
    }
}

/// An error and what caused it, in one line.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}
