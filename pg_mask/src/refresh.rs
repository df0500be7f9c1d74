//! Filling the stored results of sql/05_dashboards.sql anew. Code of the login table's owner runs meanwhile, as the role that
//! they belong to.

use crate::error::{Error, OrRaise};
use crate::held;
use crate::named_tables::Meant;
use crate::no_prepare;
use crate::own_names;
use crate::own_roles;
use crate::plan;
use crate::role_of_code;
use crate::run_as;
use crate::session_caches;
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

/// What a refresh of $1 reads, over however many views. Whether one of these has a function or an operator that somebody made, other than
/// pg_mask's, is in the second column.
const READ: &str = "WITH RECURSIVE read (id) AS (
        SELECT $1
        UNION
        SELECT d.refobjid
        FROM read JOIN pg_catalog.pg_rewrite AS r ON r.ev_class = read.id
        JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    )
    SELECT c.oid, EXISTS (
            SELECT FROM pg_catalog.pg_rewrite AS r
            JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
            WHERE r.ev_class = c.oid AND d.refobjid >= 16384
              AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
                  'pg_catalog.pg_type'::pg_catalog.regclass)
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS m JOIN pg_catalog.pg_extension AS e ON e.oid = m.refobjid
                  WHERE m.classid = d.refclassid AND m.objid = d.refobjid AND m.deptype = 'e'
                    AND m.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND e.extname = 'pg_mask')
        ), c.relkind IN ('v', 'm')
    FROM read JOIN pg_catalog.pg_class AS c ON c.oid = read.id";

/// Whether the current role may refresh $1.
#[cfg(any(feature = "pg15", feature = "pg16"))]
const MAY_REFRESH: &str =
    "SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') FROM pg_catalog.pg_class AS c WHERE c.oid = $1";
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
const MAY_REFRESH: &str =
    "SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') OR pg_catalog.has_table_privilege(c.oid, 'MAINTAIN')
    FROM pg_catalog.pg_class AS c WHERE c.oid = $1";

const ALL: &str = "SELECT pgmask.refresh_all_stored()";

/// All of them; returns how long it took.
#[pg_extern(sql = false)]
fn refresh_dashboards() -> Interval {
    held::hold();
    plan::one_row(ALL, Vec::new, |row| row.get(1)).or_raise()
}

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
    refresh(view, String::from_utf8_lossy(&name).into_owned(), owner, concurrently).or_raise();
    true
}

fn refresh(view: pg_sys::Oid, name: String, owner: pg_sys::Oid, concurrently: bool) -> Result<(), Error> {
    if let Some(OwnedText(role)) =
        plan::catalog_row(OTHER_ROLE, || vec![owner.into()], |row| row.get_or_null::<OwnedText>(1))?
    {
        return Err(Error::RefresherMember(String::from_utf8_lossy(&role).into_owned()));
    }
    let how = if concurrently { "CONCURRENTLY " } else { "" };
    let sql = format!("REFRESH MATERIALIZED VIEW {how}{name}");
    let text = CString::new(sql.as_str()).map_err(|_| Error::Unreadable)?;
    let run = || {
        own_names::with_policies(); // pg_restore has put them off, and refuses to go without them
        plan::write_once(Meant::only(&[]), &sql, Vec::new).map(drop)
    };
    // PostgreSQL would ask that after event triggers have run, as whoever calls.
    if !plan::catalog_row(MAY_REFRESH, || vec![view.into()], |row| row.get::<bool>(1))? {
        return Err(Error::MayNotRefresh(name));
    }
    // Event triggers run as whoever refreshes, who may be a superuser by way of logins.refresh_dashboards(), in the midst of what
    // code of tables has had compiled.
    let refresh = || run_as::unbound(owner, run);
    // What the server says may hold a row, which the caller need not be allowed to read.
    // SAFETY: look-ups. logins.refresh_dashboards() acts as its owner, whoever calls it.
    let is_superusers = unsafe { pg_sys::superuser_arg(unguarded::GetOuterUserId()) };
    let is_hidden = |failure: &Failure| !is_superusers && !failure.is_interrupt();
    attempt(|| role_of_code::refresh_as(owner, &text, may_run_code(view)?, refresh), is_hidden).map_err(
        |failure| {
            let not_refreshed = || Error::NotRefreshed { view: name, sqlstate: failure.sqlstate };
            role_of_code::refused(&failure.sqlstate).unwrap_or_else(not_refreshed)
        },
    )?
}

/// Whether a refresh of `view` may run code of others: of the tables that it reads, or of views between that somebody changed. Only a
/// superuser's session is worth a look, as it restores dumps, and has then called what it has called.
fn may_run_code(view: pg_sys::Oid) -> Result<bool, Error> {
    // SAFETY: a look-up.
    if !unsafe { pg_sys::superuser_arg(unguarded::GetAuthenticatedUserId()) } {
        return Ok(true);
    }
    let read =
        |row: &plan::Row<'_>| Ok((row.get::<pg_sys::Oid>(1)?, row.get::<bool>(2)?, row.get::<bool>(3)?));
    for (relation, has_others_functions, is_view) in plan::catalog(READ, || vec![view.into()], read)? {
        if has_others_functions {
            return Ok(true);
        }
        if !is_view {
            // SAFETY: a lock that reading takes as well, so that nobody gives the table policies or other columns before.
            unsafe { pg_sys::LockRelationOid(relation, pg_sys::AccessShareLock as i32) };
            if session_caches::can_run_code_for_a_reader(relation) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
