//! Making the keyring, and asking about it.

use crate::error::{Error, OrRaise};
use crate::key_check::{self, KeyCheck, State};
use crate::snapshot::Snapshot;
use crate::{clock, keys, plan, settings};
use pg_mask_core::key_file;
use pg_mask_core::keyring::{self, Keyring, Which};
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::path::Path;

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
            if is_citus_worker()? {
                return Err(Error::CitusWorker { path });
            }
            let made = keyring::now().and_then(|now| Keyring::generate(&now));
            let (_, text) = made.map_err(|error| Error::Keyring { path: path.clone(), error })?;
            let is_ours = key_file::create(&path, &text).map_err(at)?;
            tell_where_it_lies(&path, is_ours);
        }
        Err(error) => return Err(at(error)),
        Ok(_) => tell_where_it_lies(&path, false),
    }
    key_check::begin_with(&keys::server()?.keyring);
    Ok(())
}

/// Whether this database is a worker's of a Citus cluster. Citus passes CREATE EXTENSION on to its workers, and
/// with a keyring of its own each would mask equal values differently. Citus numbers the groups of workers from 1
/// on; the coordinator, and a server that is not part of a cluster yet, are of group 0.
fn is_citus_worker() -> Result<bool, Error> {
    const HAS_GROUPS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus')
        AND pg_catalog.to_regclass('pg_catalog.pg_dist_local_group') IS NOT NULL";
    const IS_WORKER: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_local_group WHERE groupid > 0)";
    let ask = |sql| plan::one_row(sql, Vec::new, |row| row.get::<bool>(1));
    Ok(ask(HAS_GROUPS)? && ask(IS_WORKER)?)
}

/// Whether the keyring lies where every base backup takes it along, and where it is deleted with the old
/// cluster after an upgrade.
#[pg_extern(schema = "pgmask", stable, parallel_safe)]
fn keyring_is_in_data_directory() -> bool {
    is_in_data_directory(&settings::keyring_file())
}

/// Links are followed: what counts is where the file itself lies.
fn is_in_data_directory(path: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(path).starts_with(real(settings::data_directory()))
}

/// Advice for the DBA who creates the extension, and is a superuser.
fn tell_where_it_lies(path: &Path, is_new: bool) {
    let is_inside = is_in_data_directory(path);
    let message = match (is_new, is_inside) {
        (true, _) => format!("pg_mask made a new keyring with random keys: \"{}\"", path.display()),
        (false, true) => format!("pg_mask's keyring lies in the data directory: \"{}\"", path.display()),
        (false, false) => return,
    };
    let back_up = "Back it up apart from the database: without it tokens can't be continued.";
    let move_out = "In the data directory it is part of every base backup, beside the tokens that it protects, and is deleted with that directory. In production, move it elsewhere and let pgmask.keyring_file name its new place.";
    let hint = match (is_new, is_inside) {
        (true, true) => format!("{back_up} {move_out}"),
        (true, false) => back_up.to_owned(),
        (false, _) => move_out.to_owned(),
    };
    ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message, "")
        .set_hint(hint)
        .report(PgLogLevel::NOTICE);
}

/// The keys of the server and of this database, a row each. `state` is "ok", "waiting" (the keyring has
/// it, this database does not use it yet), "differs" or "missing": with these two nothing is masked.
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
    let keys = keys::server()?;
    let check = KeyCheck::read(Snapshot::Statement)?;
    let mut rows = Vec::new();
    for (which, key) in keys.keyring.keys() {
        let value = key.check_value();
        let state = check.state(which, Some(&value));
        rows.push((which, clock::timestamp(key.created_at_unix_micros()), Some(value), state));
    }
    let missing = check.missing(&keys.check_values);
    rows.extend(missing.map(|(which, value)| (*which, None, Some(value.clone()), State::Missing)));
    rows.sort_by_key(|(which, ..)| *which);
    Ok(rows
        .into_iter()
        .map(|(which, created_at, value, state)| {
            let (kind, number) = match which {
                Which::Generation(n) => ("mask", n),
                Which::Seal(n) => ("seal", n),
            };
            (kind, number as i32, check.is_in_use(which), created_at, value, state.as_str())
        })
        .collect())
}
