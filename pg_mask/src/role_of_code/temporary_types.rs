//! Types that the session has made for itself alone. PL/pgSQL keeps what the types of a function mean, as its first call in a
//! session found them: whoever's session it is could have had functions which code of the login table calls compiled with types
//! of its own, whose checks and casts would see rows.

use crate::error::Error;
use crate::plan;
use crate::text::OwnedText;
use pgrx::prelude::*;

/// One in the temporary schema $1: any but the rows of its tables, and of these one that has a cast.
const OWN_TYPE: &str = "SELECT pg_catalog.min(t.typname::pg_catalog.text)
    FROM pg_catalog.pg_type AS t LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
    WHERE t.typnamespace = $1
      AND (t.typtype IN ('d', 'e', 'r', 'm') OR c.relkind = 'c'
           OR EXISTS (SELECT FROM pg_catalog.pg_cast AS k WHERE t.oid IN (k.castsource, k.casttarget)))";

/// Refuses a session that has one.
pub(super) fn refuse() -> Result<(), Error> {
    let (mut schema, mut of_toast) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: a plain read of the backend's own state.
    unsafe { pg_sys::GetTempNamespaceState(&raw mut schema, &raw mut of_toast) };
    if schema == pg_sys::InvalidOid {
        return Ok(());
    }
    let read = |row: &plan::Row<'_>| row.get_or_null::<OwnedText>(1);
    match plan::catalog_row(OWN_TYPE, || vec![schema.into()], read)? {
        Some(OwnedText(name)) => Err(Error::TemporaryType(String::from_utf8_lossy(&name).into_owned())),
        None => Ok(()),
    }
}
