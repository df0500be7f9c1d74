//! What an error of the database means: its kind, by SQLSTATE.

use crate::error::{End, Error, Kind, with_causes};
use tokio_postgres::error::SqlState;

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(refused) = error.as_db_error() else {
            let text = format!("the database can't be reached: {}", with_causes(&error));
            return Self::transient(End::Database, text).caused_by(error);
        };
        // Message and hint only: a detail may hold values of a row.
        let text =
            format!("the database refuses: {} (SQLSTATE {})", refused.message(), refused.code().code());
        let sorted = Self::new(kind_of(refused.code()), Some(End::Database), text);
        let sorted = match refused.hint() {
            Some(hint) => sorted.with_hint(hint),
            None => sorted,
        };
        sorted.caused_by(error)
    }
}

/// A connection could not be made.
impl From<pg_settings::Error> for Error {
    fn from(error: pg_settings::Error) -> Self {
        let kind = match error.kind() {
            pg_settings::Kind::Transient => Kind::Transient,
            // A server's administrator has to act, whether it is the role or the database that is missing.
            pg_settings::Kind::Credentials | pg_settings::Kind::SetUp => Kind::SetUp,
        };
        Self::new(kind, Some(End::Database), error.to_string()).caused_by(error)
    }
}

/// The server's error code, if the error is the server's.
pub(crate) fn sqlstate(error: &Error) -> Option<&SqlState> {
    let source = std::error::Error::source(error)?;
    let of_connection = || source.downcast_ref().and_then(pg_settings::Error::sqlstate);
    source.downcast_ref().and_then(tokio_postgres::Error::code).or_else(of_connection)
}

/// Classes 0A (what this version can't do), 28 (which role), 3D and 3F (which database and schema), 42
/// (what is there and who may use it) and F0 (the keyring) are the set-up. All others, read-only servers,
/// shutdowns and lack of resources among them, may pass.
fn kind_of(code: &SqlState) -> Kind {
    match code.code().get(..2) {
        Some("0A" | "28" | "3D" | "3F" | "42" | "F0") => Kind::SetUp,
        _ => Kind::Transient,
    }
}
