//! New keys: `add_key` puts one into the keyring's file, `rotate_key` and `rotate_seal_key` put one to use
//! in this database.
//!
//! The file is the server's and changes at once and for good; what is in use stands in key_check and
//! changes with the transaction. So a rotation that is rolled back leaves a key that waits for the next.

use crate::audit;
use crate::error::{Error, OrRaise};
use crate::held;
use crate::key_check::KeyCheck;
use crate::keys;
use crate::{plan, settings};
use pg_mask_core::key_file::{self, KeyFileError};
use pg_mask_core::keyring::{self, Key, Keyring, Kind, Which};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// For how long another session may be at the keyring's file: a change takes milliseconds.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often it is tried meanwhile.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// Counts the servers that take this one's WAL.
const STANDBYS: &str = "SELECT count(*) FROM pg_catalog.pg_stat_get_wal_senders() AS sender
    WHERE sender.state OPERATOR(pg_catalog.=) ANY ('{streaming,catchup}')";

#[pg_extern(schema = "pgmask", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn add_key() -> i32 {
    held::hold_to_write(c"add_key()");
    number(add(Kind::Mask).or_raise())
}

#[pg_extern(schema = "pgmask", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn rotate_key() -> i32 {
    held::hold_to_write(c"rotate_key()");
    number(rotate(Kind::Mask).or_raise())
}

#[pg_extern(schema = "pgmask", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn rotate_seal_key() -> i32 {
    held::hold_to_write(c"rotate_seal_key()");
    number(rotate(Kind::Seal).or_raise())
}

fn number(which: Which) -> i32 {
    let (Which::Generation(number) | Which::Seal(number)) = which;
    number as i32
}

/// Puts the next key to use in this database.
fn rotate(kind: Kind) -> Result<Which, Error> {
    let check = KeyCheck::lock_and_read()?;
    let before = check.generation()?; // an incomplete record is no ground to build on
    check.verify(&keys::server()?.check_values)?;
    if next(kind, &check, &keys::server()?.keyring).is_none() {
        tell_standbys(add(kind)?)?;
    }
    // Perhaps not the one that was just added: another database may have added one meanwhile, too.
    let server = keys::server()?;
    let Some((which, key)) = next(kind, &check, &server.keyring) else {
        return Err(Error::NoNextKey);
    };
    check.record(which, key);
    if let Which::Generation(generation) = which {
        audit::prove_end_anew(&server, before, generation)?;
    }
    Ok(which)
}

/// The key of `keyring` that waits to be used next.
fn next<'a>(kind: Kind, check: &KeyCheck, keyring: &'a Keyring) -> Option<(Which, &'a Key)> {
    keyring.keys().find(|(which, _)| match (kind, which) {
        (Kind::Mask, Which::Generation(n)) => check.generation().is_ok_and(|in_use| *n > in_use),
        (Kind::Seal, Which::Seal(id)) => check.seal_id().is_none_or(|in_use| *id > in_use),
        _ => false,
    })
}

/// Adds a fresh key to the keyring's file.
fn add(kind: Kind) -> Result<Which, Error> {
    let path = settings::keyring_file();
    let at = |error| Error::KeyFile { path: path.clone(), error };
    let of_keyring = |error| Error::Keyring { path: path.clone(), error };
    let began = Instant::now();
    let locked = loop {
        match key_file::lock(&path).map_err(at)? {
            Some(locked) => break locked,
            None if began.elapsed() > LONGEST_WAIT => return Err(at(KeyFileError::Locked)),
            None => {
                pgrx::check_for_interrupts!();
                std::thread::sleep(TRY_EVERY);
            }
        }
    };
    let now = keyring::now().map_err(of_keyring)?;
    let (added, text) = Keyring::with_new_key(&locked.read().map_err(at)?, kind, &now).map_err(of_keyring)?;
    locked.replace(&text).map_err(at)?;
    Ok(added)
}

/// Servers that replicate from this one mask only once they have the key, too.
fn tell_standbys(added: Which) -> Result<(), Error> {
    let standbys = plan::one_row(STANDBYS, Vec::new, |row| row.get::<i64>(1))?;
    if standbys == 0 {
        return Ok(());
    }
    let servers = if standbys == 1 {
        "A server replicates".to_owned()
    } else {
        format!("{standbys} servers replicate")
    };
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        format!("{servers} from this one and masks nothing until its keyring has {added}"),
        "",
    )
    .set_hint("Copy the keyring's file there before you commit. Next time call pgmask.add_key() and copy the file first.")
    .report(PgLogLevel::NOTICE);
    Ok(())
}
