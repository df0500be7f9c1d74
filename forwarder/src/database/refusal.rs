//! What an error of the database means: its kind, by SQLSTATE.

use crate::error::{End, Error, Kind};
use safe_output::with_causes;
use tokio_postgres::error::SqlState;

/// Names the server whose error it is.
pub(crate) trait At<T> {
    /// The value, or an error of this server's.
    fn at(self, server: &str) -> Result<T, Error>;
}

impl<T> At<T> for Result<T, tokio_postgres::Error> {
    fn at(self, server: &str) -> Result<T, Error> {
        self.map_err(|error| of_a_statement(error, server))
    }
}

/// The error of a statement.
fn of_a_statement(error: tokio_postgres::Error, server: &str) -> Error {
    let Some(refused) = error.as_db_error() else {
        let text = format!("the database can't be reached at {server}: {}", with_causes(&error));
        return Error::transient(End::Database, text).caused_by(error);
    };
    // Message and hint only: a detail may hold values of a row.
    let (message, code) = (refused.message(), refused.code());
    let text = format!("the database at {server} refuses: {message} (SQLSTATE {})", code.code());
    let classified = Error::new(kind_of(code), Some(End::Database), text);
    let classified = match refused.hint() {
        Some(hint) => classified.with_hint(hint),
        None => classified,
    };
    classified.caused_by(error)
}

const OTHER_VERSION: &str = "Run there, as a superuser: ALTER EXTENSION pg_mask UPDATE;";

/// The error of a batch. pg_mask's own errors bring a hint; here are hints for PostgreSQL's, and for what the
/// forwarder's flags decide.
pub(super) fn of_a_batch(error: tokio_postgres::Error, server: &str) -> Error {
    let hint = match error.code().map(SqlState::code) {
        Some("42501") if !has_hint(&error) => {
            "Grant the role what sql/02_rights.sql grants: GRANT pgmask_ingester TO the role."
        }
        Some("42883") => OTHER_VERSION,
        Some("2202E") => {
            "Run as a superuser: ALTER ROLE … SET default_transaction_isolation = 'read committed';"
        }
        Some(code) if code.starts_with("54") => "Lower --batch-messages or --batch-bytes.",
        _ => return of_a_statement(error, server),
    };
    of_a_statement(error, server).with_hint(hint)
}

fn has_hint(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|refused| refused.hint().is_some())
}

/// Whether it is PostgreSQL that refuses the role a right, and not pg_mask, which says what else is missing.
pub(crate) fn lacks_right(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    sqlstate(error) == Some(&SqlState::INSUFFICIENT_PRIVILEGE) && !source.is_some_and(has_hint)
}

/// The extension answered otherwise than this forwarder expects.
pub(super) fn no_answer(text: &str) -> Error {
    Error::new(Kind::SetUp, Some(End::Database), text).with_hint(OTHER_VERSION)
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

/// Classes 0A (what this version can't do), 22 (values that it can't read), 28 (which role), 3D and 3F (which
/// database and schema), 42 (what is there and who may use it), 54 (what is too large for it) and F0 (the
/// keyring) are the set-up. All others, read-only servers, shutdowns and lack of resources among them, may pass.
fn kind_of(code: &SqlState) -> Kind {
    match code.code().get(..2) {
        Some("0A" | "22" | "28" | "3D" | "3F" | "42" | "54" | "F0") => Kind::SetUp,
        _ => Kind::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches that were too large, or held what the server can't read, were tried again for ever.
    #[test]
    fn what_does_not_pass_by_itself_is_the_set_up() {
        for code in ["54000", "54001", "22021", "42501", "F0000", "3D000"] {
            assert_eq!(kind_of(&SqlState::from_code(code)), Kind::SetUp, "{code}");
        }
        for code in ["53100", "57P01", "40001", "25006", "08006", "XX000"] {
            assert_eq!(kind_of(&SqlState::from_code(code)), Kind::Transient, "{code}");
        }
    }
}
