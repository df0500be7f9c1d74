//! Does the server's keyring hold the keys that this database was masked with?
//!
//! `pgmask.key_check` travels with every dump and says so. It is read directly, with the newest
//! catalog snapshot: whoever masks needs no right on it, it works in parallel workers and on
//! standbys, and it costs a microsecond.

use crate::error::Error;
use crate::{clock, plan};
use pg_mask_core::keyring::Keyring;
use pgrx::PgTupleDesc;
use pgrx::prelude::*;

/// The columns of `pgmask.key_check`.
const GENERATION: i32 = 1;
const CHECK_VALUE: i32 = 2;

const RECORD: &str = "INSERT INTO pgmask.key_check (generation, check_value, created_at) VALUES ($1, $2, $3)
    ON CONFLICT (generation) DO NOTHING";

/// Compares every row with the keyring's check values, generation 1 first.
pub(crate) fn verify(check_values: &[String]) -> Result<(), Error> {
    for (generation, recorded) in recorded()? {
        match value_of(check_values, generation) {
            None => return Err(Error::KeyMissing { generation }),
            Some(value) if *value != recorded => return Err(Error::KeyDiffers { generation }),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The check value of a generation.
pub(crate) fn value_of(check_values: &[String], generation: i32) -> Option<&String> {
    check_values.get(usize::try_from(generation).ok()?.checked_sub(1)?)
}

/// Records the generations that this database has no row of yet: of a keyring that has grown.
pub(crate) fn record(keyring: &Keyring, check_values: &[String]) -> Result<(), Error> {
    let recorded = recorded()?;
    for (key, check_value) in keyring.generations().iter().zip(check_values) {
        let generation = key.number() as i32;
        if recorded.iter().all(|(number, _)| *number != generation) {
            let created_at = clock::timestamp(key.created_at_unix_micros());
            let row = || vec![generation.into(), check_value.as_str().into(), created_at.into()];
            plan::run(RECORD, row, |_| ());
        }
    }
    Ok(())
}

/// Every row: a generation and its check value.
pub(crate) fn recorded() -> Result<Vec<(i32, String)>, Error> {
    // SAFETY: catalog look-ups, then PostgreSQL's own way to read a small table: open, scan, close.
    // An error on the way closes all of it, as for any C code. The tuple descriptor is compared
    // with what is read before anything is.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"pgmask".as_ptr(), true);
        let table = pg_sys::get_relname_relid(c"key_check".as_ptr(), schema);
        if table == pg_sys::InvalidOid {
            return Err(Error::KeyCheckTable);
        }
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
        if (*(*relation).rd_rel).relkind as u8 != pg_sys::RELKIND_RELATION {
            return Err(Error::KeyCheckTable);
        }
        let columns = PgTupleDesc::from_pg_unchecked((*relation).rd_att);
        let expected_type = |number: i32, oid| {
            columns
                .get(number as usize - 1)
                .is_some_and(|column| !column.attisdropped && column.atttypid == oid)
        };
        if !expected_type(GENERATION, pg_sys::INT4OID) || !expected_type(CHECK_VALUE, pg_sys::TEXTOID) {
            return Err(Error::KeyCheckTable);
        }
        let mut rows = Vec::new();
        let no_snapshot = std::ptr::null_mut(); // the newest catalog snapshot
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            no_snapshot,
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let (mut no_generation, mut no_value) = (false, false);
            let generation = pg_sys::heap_getattr(tuple, GENERATION, (*relation).rd_att, &mut no_generation);
            let value = pg_sys::heap_getattr(tuple, CHECK_VALUE, (*relation).rd_att, &mut no_value);
            let generation = i32::from_datum(generation, no_generation).unwrap_or_default();
            rows.push((generation, String::from_datum(value, no_value).unwrap_or_default()));
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        Ok(rows)
    }
}
