//! The limit that a role has of its own: what ALTER ROLE … SET and ALTER DATABASE … SET say, and a session of
//! that role would begin with.
//!
//! A session has the settings of the role that it logged in as, but a value may count for another role: for the
//! owner of an index whose expression somebody's ANALYZE computes, for example. So the catalog is asked.

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
    // SAFETY: the variable is set when the session begins. The catalog stays open while it is read; an error on
    // the way closes it.
    unsafe {
        let here = pg_sys::MyDatabaseId;
        let catalog = pg_sys::table_open(SETTINGS, pg_sys::AccessShareLock as i32);
        // The first that is there counts, as when a session begins (postinit.c, process_settings).
        let found = [(here, role), (ANY, role), (here, ANY), (ANY, ANY)]
            .into_iter()
            .find_map(|(database, role)| value_for(catalog, database, role, name));
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
        found
    }
}

/// The value of the setting `name` that stands at a database and a role.
///
/// # Safety
/// `catalog` is pg_db_role_setting, open.
unsafe fn value_for(
    catalog: pg_sys::Relation,
    database: pg_sys::Oid,
    role: pg_sys::Oid,
    name: &str,
) -> Option<i32> {
    let is = |column, oid: pg_sys::Oid| {
        let mut key = pg_sys::ScanKeyData::default();
        // SAFETY: it fills in `key`: the column's type is oid.
        unsafe {
            let equal = pg_sys::BTEqualStrategyNumber as u16;
            pg_sys::ScanKeyInit(&mut key, column, equal, pg_sys::F_OIDEQ.into(), oid.into());
        }
        key
    };
    let mut keys = [is(DATABASE, database), is(ROLE, role)];
    // SAFETY: PostgreSQL's own way to read a catalog (pg_db_role_setting.c, ApplySetting). The column is a
    // text[], and read before the scan ends.
    unsafe {
        let newest = std::ptr::null_mut();
        let scan =
            pg_sys::systable_beginscan(catalog, BY_DATABASE_AND_ROLE, true, newest, 2, keys.as_mut_ptr());
        let tuple = pg_sys::systable_getnext(scan);
        let mut found = None;
        if !tuple.is_null() {
            let mut is_null = false;
            let config = pg_sys::heap_getattr(tuple, CONFIG, (*catalog).rd_att, &mut is_null);
            let config = Array::<Text<'_>>::from_polymorphic_datum(config, is_null, pg_sys::TEXTARRAYOID);
            // Of several, the last one counts.
            found = config
                .iter()
                .flat_map(Array::iter)
                .flatten()
                .filter_map(|entry| value_of(entry, name))
                .last();
        }
        pg_sys::systable_endscan(scan);
        found
    }
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
