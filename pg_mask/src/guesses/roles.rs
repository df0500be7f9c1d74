//! For which roles a value counts, and how large their budgets are.

use super::budgets::{Budget, RoleName, What};
use super::limits;
use crate::settings::{self, Limit};
use crate::unguarded;
use pgrx::prelude::*;
use std::ffi::CStr;

/// Its members mask without a limit.
const UNLIMITED: &CStr = c"pgmask_unlimited";

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
            let limit = limits::of(*role, what.setting());
            let is_authenticated = authenticated == Some(*role);
            counted.push(Counted { role: *role, name: name_of(*role), limit, is_authenticated });
        }
    }
    counted
}

/// The budgets of those roles: each has the smaller one of its own limit and the session's. One without a limit of its
/// own has the server's, whoever's session it is: that may have a higher one, or none. Without any, it has no budget.
pub(super) fn budgets(what: What, counted: &[Counted]) -> Vec<Budget> {
    let Limit { of_session, of_server } = match what {
        What::Guesses => settings::guess_limit(),
        What::Recoveries => settings::recover_limit(),
    };
    let budget = |counted: &Counted| {
        let own = counted.limit.unwrap_or(if counted.is_authenticated { of_session } else { of_server });
        let limit = [own, of_session].into_iter().filter_map(|limit| u32::try_from(limit).ok()).min()?;
        Some(Budget { role: counted.role, name: counted.name, limit })
    };
    counted.iter().filter_map(budget).collect()
}

/// A role that was dropped meanwhile has no name, and its OID stands for it.
fn name_of(role: pg_sys::Oid) -> RoleName {
    // SAFETY: a catalog look-up; the name is copied.
    let name = unsafe { pg_sys::GetUserNameFromId(role, true) };
    match name.is_null() {
        true => RoleName::new(role.to_u32().to_string().as_bytes()),
        // SAFETY: it is a C string.
        false => RoleName::new(unsafe { CStr::from_ptr(name) }.to_bytes()),
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

/// A role with members that something masks for, where none of them has it done: an index or a materialized view of the
/// role's is maintained by somebody else, or a superuser's statement runs a function or a trigger with the role's rights.
/// Each group would be one more budget for its members.
pub(super) fn group_in_maintenance([authenticated, _, current]: Roles) -> Option<String> {
    // SAFETY: looks at the backend's own state, and a catalog look-up.
    let (is_maintenance, is_switched, is_member) = unsafe {
        (
            pg_sys::InSecurityRestrictedOperation(),
            pg_sys::InLocalUserIdChange(),
            pg_sys::is_member_of_role(authenticated, current),
        )
    };
    let for_nobody = is_maintenance && !is_member
        || (is_maintenance || is_switched) && is_exempt(What::Guesses, authenticated);
    (for_nobody && !is_exempt(What::Guesses, current) && has_members(current))
        .then(|| name_of(current).shown())
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
