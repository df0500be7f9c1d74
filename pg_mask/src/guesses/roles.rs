//! For which roles a value counts, and how large their budgets are.

use super::budgets::{Budget, Budgets, RoleName, What};
use super::limits;
use crate::settings;
use crate::unguarded;
use pgrx::prelude::*;
use std::ffi::CStr;

/// Its members mask without a limit.
const UNLIMITED: &CStr = c"pgmask_unlimited";

/// Owns the stored results of sql/05_dashboards.sql, whose code is a superuser's: what it lifts counts for it alone, and no
/// role is in it.
const REFRESHER: &CStr = c"pgmask_refresher";

/// The authenticated user, the session's user, and the current one.
pub(super) type Roles = [pg_sys::Oid; 3];

#[inline]
pub(super) fn roles() -> Roles {
    // SAFETY: these return static variables.
    unsafe { [unguarded::GetAuthenticatedUserId(), unguarded::GetSessionUserId(), unguarded::GetUserId()] }
}

/// A role that values count for.
pub(super) struct Counted {
    role: pg_sys::Oid,
    name: RoleName,
    /// The limit that it has of its own.
    limit: Option<i32>,
    /// Whether it is the one that the session's settings are of.
    is_authenticated: bool,
}

/// Those of `roles` that are not exempt, each once; the session is that of `authenticated`.
pub(super) fn counted(what: What, authenticated: Option<pg_sys::Oid>, roles: &[pg_sys::Oid]) -> Vec<Counted> {
    let mut counted = Vec::new();
    for (at, role) in roles.iter().enumerate() {
        if !roles[..at].contains(role) && !is_exempt(what, *role) {
            let (name, limit) = match name_of(*role) {
                Some(name) => (name, limits::of(*role, what.setting())),
                // Dropped while its statement runs: nothing for what has no name.
                None => (RoleName::new(role.to_u32().to_string().as_bytes()), Some(0)),
            };
            let is_authenticated = authenticated == Some(*role);
            counted.push(Counted { role: *role, name, limit, is_authenticated });
        }
    }
    counted
}

/// The budgets of those roles: each has the smaller one of its own limit and the session's. One without a limit of its
/// own has the server's, whoever's session it is: that may have a higher one, or none. Without any, it has no budget.
pub(super) fn budgets(what: What, counted: &[Counted]) -> Vec<Budget> {
    let (of_session, default) = match what {
        What::Guesses => (settings::guess_limit(), settings::DEFAULT_GUESS_LIMIT),
        What::Recoveries => (settings::recover_limit(), settings::DEFAULT_RECOVER_LIMIT),
    };
    let of_server = Budgets::find().limit_of_server(what).unwrap_or(default);
    let budget = |counted: &Counted| {
        let own = counted.limit.unwrap_or(if counted.is_authenticated { of_session } else { of_server });
        let limit = [own, of_session].into_iter().filter_map(|limit| u32::try_from(limit).ok()).min()?;
        Some(Budget { role: counted.role, name: counted.name, limit })
    };
    counted.iter().filter_map(budget).collect()
}

/// `None` for a role that was dropped.
fn name_of(role: pg_sys::Oid) -> Option<RoleName> {
    // SAFETY: a catalog look-up; the name is a C string, and copied.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        (!name.is_null()).then(|| RoleName::new(CStr::from_ptr(name).to_bytes()))
    }
}

fn is_exempt(what: What, role: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups.
    unsafe {
        if pg_sys::superuser_arg(role) {
            return true;
        }
        let unlimited = pg_sys::get_role_oid(UNLIMITED.as_ptr(), true);
        what == What::Guesses && unlimited != pg_sys::InvalidOid && pg_sys::is_member_of_role(role, unlimited)
    }
}

/// A role whose budget would be used for nobody who pays: it has members or can't log in, and its code is run by somebody
/// else's statement. That is maintenance (an index, a materialized view) and what follows a foreign key, unless a member
/// with a budget does it; and any function of the role's for who has no budget. Each such role would be one more budget
/// for those who put its code there.
pub(super) fn nobodys([authenticated, _, current]: Roles, budgets: &[Budget]) -> Option<String> {
    if authenticated == current || is_exempt(What::Guesses, current) {
        return None;
    }
    let pays = budgets.iter().any(|budget| budget.role == authenticated);
    // SAFETY: looks at the backend's own state, and a catalog look-up.
    let (is_maintenance, is_switched, is_member) = unsafe {
        (
            pg_sys::InSecurityRestrictedOperation() || pg_sys::InNoForceRLSOperation(),
            pg_sys::InLocalUserIdChange(),
            pg_sys::is_member_of_role(authenticated, current),
        )
    };
    let for_nobody = is_maintenance && !(is_member && pays) || is_switched && !pays;
    let is_nobodys = for_nobody && (has_members(current) || !can_log_in(current) && !is_refresher(current));
    is_nobodys.then(|| name_of(current).map_or_else(|| current.to_u32().to_string(), |name| name.shown()))
}

fn is_refresher(role: pg_sys::Oid) -> bool {
    // SAFETY: a look-up.
    role == unsafe { pg_sys::get_role_oid(REFRESHER.as_ptr(), true) }
}

fn can_log_in(role: pg_sys::Oid) -> bool {
    let cache = pg_sys::SysCacheIdentifier::AUTHOID as i32;
    let mut is_null = false;
    // SAFETY: a look-up in PostgreSQL's cache; the tuple is released when it was read. The column is a bool and never NULL
    // (pg_authid.h).
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, role.into());
        if tuple.is_null() {
            return false;
        }
        let column = pg_sys::Anum_pg_authid_rolcanlogin as i16;
        let can = pg_sys::SysCacheGetAttr(cache, tuple, column, &mut is_null).value() & 0xff != 0;
        pg_sys::ReleaseSysCache(tuple);
        can
    }
}

fn has_members(role: pg_sys::Oid) -> bool {
    let (cache, none) = (pg_sys::SysCacheIdentifier::AUTHMEMROLEMEM as i32, pg_sys::Datum::from(0));
    // SAFETY: a look-up in PostgreSQL's cache; the list is released.
    unsafe {
        let list = pg_sys::SearchSysCacheList(cache, 1, role.into(), none, none);
        let members = (*list).n_members;
        pg_sys::ReleaseCatCacheList(list);
        members > 0
    }
}

/// Whether what `role` masks has no limit: lifting a hash without a key is a way to try guesses, too.
pub(crate) fn is_unlimited(role: pg_sys::Oid) -> bool {
    is_exempt(What::Guesses, role)
}
