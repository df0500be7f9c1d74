//! Filling the stored results of sql/05_dashboards.sql anew. Code of the login table's owner runs meanwhile, as the role that
//! they belong to.

use crate::error::{Error, OrRaise};
use crate::named_tables::{Meant, qualified_name};
use crate::own_roles;
use crate::plan;
use crate::role_of_code;
use crate::subtransaction::{Failure, attempt};
use crate::text::OwnedText;
use crate::unguarded;
use pgrx::prelude::*;

/// A role that $1 is a member of, other than the analysts.
const OTHER_ROLE: &str = "SELECT pg_catalog.min(r.rolname::pg_catalog.text)
    FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid
    WHERE m.member = $1 AND r.rolname <> 'pgmask_analyst'";

/// REFRESH MATERIALIZED VIEW of one that belongs to `pgmask_refresher`.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
pub(crate) fn refresh_stored(view: pg_sys::Oid, concurrently: bool) {
    refresh(view, concurrently).or_raise();
}

fn refresh(view: pg_sys::Oid, concurrently: bool) -> Result<(), Error> {
    // SAFETY: the relation is open while it is looked at.
    let (name, owner) = unsafe {
        let relation = pg_sys::try_relation_open(view, pg_sys::AccessShareLock as i32);
        if relation.is_null() {
            return Err(Error::NoTable { oid: view.to_u32() });
        }
        let class = &*(*relation).rd_rel;
        let found = (qualified_name(class), class.relowner);
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        found
    };
    if !own_roles::is_refresher(owner) {
        return Err(Error::NotStored(name));
    }
    if let Some(OwnedText(role)) =
        plan::catalog_row(OTHER_ROLE, || vec![owner.into()], |row| row.get_or_null::<OwnedText>(1))?
    {
        return Err(Error::RefresherMember(String::from_utf8_lossy(&role).into_owned()));
    }
    let how = if concurrently { "CONCURRENTLY " } else { "" };
    let sql = format!("REFRESH MATERIALIZED VIEW {how}{name}");
    let refresh = || plan::write_once(Meant::only(&[]), &sql, Vec::new).map(drop);
    // What the server says may hold a row, which the caller need not be allowed to read.
    // SAFETY: look-ups. logins.refresh_dashboards() acts as its owner, whoever calls it.
    let is_superusers = unsafe { pg_sys::superuser_arg(unguarded::GetOuterUserId()) };
    let is_hidden = |failure: &Failure| !is_superusers && !failure.is_interrupt();
    attempt(|| role_of_code::refresh_as(owner, refresh), is_hidden).map_err(|failure| {
        let not_refreshed = || Error::NotRefreshed { view: name, sqlstate: failure.sqlstate };
        role_of_code::refused(&failure.sqlstate).unwrap_or_else(not_refreshed)
    })?
}
