//! What the session has made for itself alone. Names of code that was written without care lead to it, as PostgreSQL looks into
//! the temporary schema first: whoever's session it is would have such code compiled with its types, whose checks and casts see
//! rows, or read and write its tables and views, whose code would run as the role that is there for code of tables.

use crate::error::Error;
use crate::plan;
use crate::text::OwnedText;
use crate::unguarded;
use pgrx::prelude::*;

/// A type, a table, a view or a sequence in the temporary schema $1. Whether somebody was given a right to it does not matter: code
/// may run as a superuser.
const MADE: &str = "SELECT pg_catalog.min(made.name::pg_catalog.text)
    FROM (
        SELECT t.typname FROM pg_catalog.pg_type AS t WHERE t.typnamespace = $1 AND NOT (t.typcategory = 'A' AND t.typtype = 'b')
        UNION ALL
        SELECT c.relname FROM pg_catalog.pg_class AS c WHERE c.relnamespace = $1
    ) AS made (name)";

/// Refuses a session that has such a thing, but for a superuser's, who needs none.
pub(super) fn refuse() -> Result<(), Error> {
    let (mut schema, mut of_toast) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: plain reads of the backend's own state, and a look-up.
    let is_superusers = unsafe {
        pg_sys::GetTempNamespaceState(&raw mut schema, &raw mut of_toast);
        schema != pg_sys::InvalidOid && pg_sys::superuser_arg(unguarded::GetAuthenticatedUserId())
    };
    if schema == pg_sys::InvalidOid || is_superusers {
        return Ok(());
    }
    let read = |row: &plan::Row<'_>| row.get_or_null::<OwnedText>(1);
    match plan::catalog_row(MADE, || vec![schema.into()], read)? {
        Some(OwnedText(name)) => Err(Error::MadeForItself(String::from_utf8_lossy(&name).into_owned())),
        None => Ok(()),
    }
}
