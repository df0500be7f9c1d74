//! What the session has made for itself alone. Names of code that was written without care lead to it, as PostgreSQL looks into
//! the temporary schema first: whoever's session it is would have such code compiled with its types, whose checks and casts see
//! rows, or read and write its tables and views, whose code would run as the role that is there for code of tables.

use crate::error::Error;
use crate::plan;
use crate::text::OwnedText;
use crate::unguarded;
use pgrx::prelude::*;

/// A type in the temporary schema $1, any but the rows of its tables, and of these one that has a cast; or a table, a view or a
/// column on which somebody else was given a right.
const MADE: &str = "SELECT pg_catalog.min(made.name::pg_catalog.text)
    FROM (
        SELECT t.typname
        FROM pg_catalog.pg_type AS t LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
        WHERE t.typnamespace = $1
          AND (t.typtype IN ('d', 'e', 'r', 'm') OR c.relkind = 'c'
               OR EXISTS (SELECT FROM pg_catalog.pg_cast AS k WHERE t.oid IN (k.castsource, k.casttarget)))
        UNION ALL
        SELECT c.relname
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = $1
          AND (c.relacl IS NOT NULL
               OR EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL))
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
