//! The limit that a role has of its own: what ALTER ROLE … SET and ALTER DATABASE … SET say, and a session of
//! that role would begin with.
//!
//! A session has the settings of the role that it logged in as, but a value may count for another role: for the
//! owner of an index whose expression somebody's ANALYZE computes, for example. So the catalog is asked.

use crate::catalog_scan::{self, Row};
use crate::settings::HIGHEST_LIMIT;
use crate::text::Text;
use pgrx::prelude::*;
use std::ffi::CString;

/// The catalog, its index and its columns (pg_db_role_setting.h).
const SETTINGS: pg_sys::Oid = pg_sys::Oid::from_u32(2964);
const BY_DATABASE_AND_ROLE: pg_sys::Oid = pg_sys::Oid::from_u32(2965);
const DATABASE: i16 = 1;
const ROLE: i16 = 2;
const CONFIG: i32 = 3;

/// What `role` has for the setting `name` in this database; `None` if that is nothing.
pub(super) fn of(role: pg_sys::Oid, name: &str) -> Option<i32> {
    const ANY: pg_sys::Oid = pg_sys::InvalidOid;
    // SAFETY: the variable is set when the session begins.
    let here = unsafe { pg_sys::MyDatabaseId };
    // The first that is there counts, as when a session begins (postinit.c, process_settings).
    [(here, role), (ANY, role), (here, ANY), (ANY, ANY)].into_iter().find_map(|(database, role)| {
        let columns = [(DATABASE, database), (ROLE, role)];
        catalog_scan::find(SETTINGS, BY_DATABASE_AND_ROLE, columns, |row| value_for(row, name))
    })
}

/// The value of the setting `name` in a row of the catalog.
fn value_for(row: &Row, name: &str) -> Option<i32> {
    let config = row.column(CONFIG)?;
    // SAFETY: the column is a text[], and read before the scan ends.
    let config = unsafe { Array::<Text<'_>>::from_polymorphic_datum(config, false, pg_sys::TEXTARRAYOID) }?;
    // Of several, the last one counts.
    config.iter().flatten().filter_map(|entry| value_of(entry, name)).last()
}

/// The value in an entry `name=value`. PostgreSQL passes over one that it can't read, and so does this.
fn value_of(entry: Text<'_>, name: &str) -> Option<i32> {
    let mut parts = entry.as_server_bytes().splitn(2, |byte| *byte == b'=');
    let (found, value) = (parts.next()?, parts.next()?);
    if !found.eq_ignore_ascii_case(name.as_bytes()) {
        return None;
    }
    let value = CString::new(value).ok()?;
    let mut number = 0;
    // SAFETY: a plain call; a hint is not asked for.
    let is_number = unsafe { pg_sys::parse_int(value.as_ptr(), &mut number, 0, std::ptr::null_mut()) };
    (is_number && (-1..=HIGHEST_LIMIT).contains(&number)).then_some(number)
}
