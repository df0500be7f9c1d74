//! Making the keyring, and asking about it.

use crate::error::{Error, OrRaise};
use crate::{clock, key_check, keys, plan, settings};
use pg_mask_core::key_file;
use pg_mask_core::keyring::{Key, Keyring};
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// The time now as RFC 3339 text.
const NOW: &str = r#"SELECT pg_catalog.to_char(
    pg_catalog.statement_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#;

/// Makes the server's keyring if it has none, and records its keys' check values. For
/// `CREATE EXTENSION` alone, which drops it at its end.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
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
                .set_hint(if path.starts_with(settings::data_directory()) {
                    "Back it up apart from the database: without it tokens can't be continued. In production, move it out of the data directory and let pgmask.keyring_file name its new place."
                } else {
                    "Back it up apart from the database: without it tokens can't be continued."
                })
                .report(PgLogLevel::NOTICE);
            }
        }
        Err(error) => return Err(at(error)),
        Ok(_) => {}
    }
    let keys = keys::latest()?;
    key_check::record(&keys.keyring, &keys.check_values)
}

/// The keys of the server and of this database, a row each. `state` is "ok", or "not recorded" (masked
/// with by nobody here yet), "differs" or "missing": with these two nothing is masked.
#[pg_extern(schema = "pgmask", stable, parallel_safe)]
#[allow(clippy::type_complexity)] // pgrx reads the columns from the type itself, not from an alias
fn key_status() -> TableIterator<
    'static,
    (
        name!(kind, &'static str),
        name!(number, i32),
        name!(current, bool),
        name!(created_at, Option<TimestampWithTimeZone>),
        name!(check_value, Option<String>),
        name!(state, &'static str),
    ),
> {
    TableIterator::new(status().or_raise())
}

type KeyStatus = (&'static str, i32, bool, Option<TimestampWithTimeZone>, Option<String>, &'static str);

fn status() -> Result<Vec<KeyStatus>, Error> {
    let keys = keys::latest()?;
    let mut recorded = key_check::recorded()?;
    let mut rows = Vec::new();
    let mut add = |kind, all: &[Key], state: &mut dyn FnMut(&Key) -> &'static str| {
        for key in all {
            let current = all.last().is_some_and(|last| last.number() == key.number());
            let created_at = clock::timestamp(key.created_at_unix_micros());
            rows.push((kind, key.number() as i32, current, created_at, Some(key.check_value()), state(key)));
        }
    };
    add("mask", keys.keyring.generations(), &mut |key| {
        let row = recorded.iter().position(|(generation, _)| *generation == key.number() as i32);
        match row.map(|row| recorded.swap_remove(row)) {
            None => "not recorded",
            Some((_, value)) if value != key.check_value() => "differs",
            Some(_) => "ok",
        }
    });
    add("seal", keys.keyring.seals(), &mut |_| "ok");
    rows.extend(
        recorded
            .into_iter()
            .map(|(generation, value)| ("mask", generation, false, None, Some(value), "missing")),
    );
    Ok(rows)
}
