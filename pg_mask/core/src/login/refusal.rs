//! Why a message is quarantined. The text of a reason is part of the public contract and holds no value
//! from the message.

use std::fmt;

/// A field of a login event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Required.
    UserId,
    /// Optional.
    DeviceType,
    /// Optional; a token is stored.
    Ip,
    /// Optional; a token is stored.
    DeviceId,
    /// Optional.
    Locale,
    /// Optional.
    AppVersion,
}

impl Field {
    /// The number of fields.
    pub const COUNT: usize = 6;

    /// The key of the field in a flat event, and its name in a [`Refusal`].
    pub fn name(self) -> &'static str {
        match self {
            Self::UserId => "user_id",
            Self::DeviceType => "device_type",
            Self::Ip => "ip",
            Self::DeviceId => "device_id",
            Self::Locale => "locale",
            Self::AppVersion => "app_version",
        }
    }
}

/// Why a message goes to the quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The body, or the message in its envelope, is not JSON text (RFC 8259).
    InvalidJson,
    /// It is JSON, but no object.
    NotAnObject,
    /// The body itself is in Amazon S3: this is the pointer to it that Amazon's extended client libraries
    /// send instead.
    S3Pointer,
    /// A required field is absent, null or empty.
    Missing(Field),
    /// A text has more characters than its column takes.
    TooLong(Field),
    /// A value that the field can't have: an array, a text that PostgreSQL can't store, or no version.
    Invalid(Field),
    /// The table's own constraints or triggers refuse the row: their SQLSTATE.
    Rejected([u8; 5]),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidJson => f.write_str("invalid_json"),
            Self::NotAnObject => f.write_str("not_an_object"),
            Self::S3Pointer => f.write_str("s3_pointer"),
            Self::Missing(field) => write!(f, "missing:{}", field.name()),
            Self::TooLong(field) => write!(f, "too_long:{}", field.name()),
            Self::Invalid(field) => write!(f, "invalid:{}", field.name()),
            Self::Rejected(sqlstate) => write!(f, "rejected:{}", sqlstate.escape_ascii()),
        }
    }
}
