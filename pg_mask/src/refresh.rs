//! Filling the stored results of sql/05_dashboards.sql anew. Code of the login table's owner runs meanwhile, as the role that
//! they belong to.

use crate::error::{Error, OrRaise};
use crate::named_tables::Meant;
use crate::no_prepare;
use crate::own_roles;
use crate::plan;
use crate::role_of_code;
use crate::subtransaction::{Failure, attempt};
use crate::text::OwnedText;
use crate::unguarded;
use pgrx::prelude::*;
use std::ffi::CString;

/// The name of a materialized view, quoted, and its owner. It is not locked: two sessions that refresh it at once would wait for
/// each other.
const NAME: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = $1 AND c.relkind = 'm'";

/// A role that $1 is a member of, other than the analysts.
const OTHER_ROLE: &str = "SELECT pg_catalog.min(r.rolname::pg_catalog.text)
    FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid
    WHERE m.member = $1 AND r.rolname <> 'pgmask_analyst'";

/// REFRESH MATERIALIZED VIEW of one that belongs to `pgmask_refresher`.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
fn refresh_stored(view: pg_sys::Oid, concurrently: bool) {
    no_prepare::refuse();
    if !refresh_if_stored(view, concurrently) {
        Err::<(), _>(Error::NotStored(view.to_u32())).or_raise();
    }
}

/// The same for whoever refreshes a view by a command; `false` if it is another.
pub(crate) fn refresh_if_stored(view: pg_sys::Oid, concurrently: bool) -> bool {
    let read = |row: &plan::Row<'_>| Ok((row.get::<OwnedText>(1)?, row.get::<pg_sys::Oid>(2)?));
    let found = plan::catalog(NAME, || vec![view.into()], read).or_raise().pop();
    let Some((OwnedText(name), owner)) = found.filter(|(_, owner)| own_roles::is_refresher(*owner)) else {
        return false;
    };
    refresh(String::from_utf8_lossy(&name).into_owned(), owner, concurrently).or_raise();
    true
}

fn refresh(name: String, owner: pg_sys::Oid, concurrently: bool) -> Result<(), Error> {
    if let Some(OwnedText(role)) =
        plan::catalog_row(OTHER_ROLE, || vec![owner.into()], |row| row.get_or_null::<OwnedText>(1))?
    {
        return Err(Error::RefresherMember(String::from_utf8_lossy(&role).into_owned()));
    }
    let how = if concurrently { "CONCURRENTLY " } else { "" };
    let sql = format!("REFRESH MATERIALIZED VIEW {how}{name}");
    let text = CString::new(sql.as_str()).map_err(|_| Error::Unreadable)?;
    let refresh = || plan::write_once(Meant::only(&[]), &sql, Vec::new).map(drop);
    // What the server says may hold a row, which the caller need not be allowed to read.
    // SAFETY: look-ups. logins.refresh_dashboards() acts as its owner, whoever calls it.
    let is_superusers = unsafe { pg_sys::superuser_arg(unguarded::GetOuterUserId()) };
    let is_hidden = |failure: &Failure| !is_superusers && !failure.is_interrupt();
    attempt(|| role_of_code::refresh_as(owner, &text, refresh), is_hidden).map_err(|failure| {
        let not_refreshed = || Error::NotRefreshed { view: name, sqlstate: failure.sqlstate };
        role_of_code::refused(&failure.sqlstate).unwrap_or_else(not_refreshed)
    })?
}
