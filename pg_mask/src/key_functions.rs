//! Making the keyring, and asking about it.

use crate::error::{Error, OrRaise};
use crate::{keys, plan, settings};
use pg_mask_core::key_file;
use pg_mask_core::keyring::Keyring;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// 1970-01-01 is that many microseconds before 2000-01-01, where PostgreSQL starts to count.
pub(crate) const UNIX_TO_POSTGRES: i64 = 946_684_800_000_000;

/// The time now as RFC 3339 text.
const NOW: &str = r#"SELECT pg_catalog.to_char(
    pg_catalog.statement_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#;

const RECORD: &str =
    "INSERT INTO pg_mask.key_check (generation, check_value, created_at) VALUES ($1, $2, $3)";

/// Makes the server's keyring if it has none, and records its keys' check values. For
/// `CREATE EXTENSION` alone, which drops it at its end.
#[pg_extern(schema = "pg_mask", volatile, parallel_unsafe)]
fn create_keyring() {
    make_and_record().or_raise();
}

fn make_and_record() -> Result<(), Error> {
    let path = settings::keyring_file();
    let at = |error| Error::KeyFile { path: path.clone(), error };
    match key_file::read(&path) {
        Err(key_file::KeyFileError::Missing) => {
            let now = plan::run(NOW, Vec::new, |rows| rows.first().get_one::<String>());
            let now = now.ok().flatten().unwrap_or_default();
            let (_, text) =
                Keyring::generate(&now).map_err(|error| Error::Keyring { path: path.clone(), error })?;
            if key_file::create(&path, &text).map_err(at)? {
                ErrorReport::new(
                    PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
                    format!("pg_mask made a new keyring with random keys: \"{}\"", path.display()),
                    "",
                )
                .set_hint(
                    "Back it up apart from the database: without it tokens can't be continued. In production, move it out of the data directory and let pg_mask.keyring_file name its new place.",
                )
                .report(PgLogLevel::NOTICE);
            }
        }
        Err(error) => return Err(at(error)),
        Ok(_) => {}
    }
    let keys = keys::latest()?;
    for (key, check_value) in keys.keyring.generations().iter().zip(&keys.check_values) {
        let created_at =
            TimestampWithTimeZone::try_from(key.created_at_unix_micros() - UNIX_TO_POSTGRES).ok();
        let row = || vec![(key.number() as i32).into(), check_value.as_str().into(), created_at.into()];
        plan::run(RECORD, row, |_| ());
    }
    Ok(())
}
