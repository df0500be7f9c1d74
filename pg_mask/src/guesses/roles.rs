//! For which roles a value counts, and how large their budgets are.

use super::budgets::{Budget, Budgets, RoleName, What};
use super::limits;
use crate::error::Error;
use crate::unguarded;
use crate::{membership, own_roles, settings};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};

/// Its members mask without a limit.
const UNLIMITED: &CStr = c"pgmask_unlimited";

/// Who masks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The authenticated user, the session's user, the role of SET ROLE, and the current one.
    pub(super) roles: [pg_sys::Oid; 4],
    /// Why the current one may be another: PostgreSQL's `SECURITY_*` (miscadmin.h).
    marks: c_int,
}

impl Caller {
    pub(super) const NONE: Self = Self { roles: [pg_sys::InvalidOid; 4], marks: 0 };

    #[inline]
    pub(crate) fn now() -> Self {
        let (mut current, mut marks) = (pg_sys::InvalidOid, 0);
        // SAFETY: these read static variables.
        unsafe {
            unguarded::GetUserIdAndSecContext(&raw mut current, &raw mut marks);
            Self {
                roles: [
                    unguarded::GetAuthenticatedUserId(),
                    unguarded::GetSessionUserId(),
                    unguarded::GetOuterUserId(),
                    current,
                ],
                marks,
            }
        }
    }

    pub(super) fn authenticated(&self) -> pg_sys::Oid {
        self.roles[0]
    }

    /// The role that rights are checked for.
    pub(crate) fn current(&self) -> pg_sys::Oid {
        self.roles[3]
    }

    fn is_marked(&self, mark: u32) -> bool {
        self.marks.cast_unsigned() & mark != 0
    }
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
    let of_server = Budgets::find().limit_of_server(what);
    let budget = |counted: &Counted| {
        // Where the server's is not known, the session's is that, or what the role had when the session began.
        let of_others = || of_server.unwrap_or(if counted.is_authenticated { of_session } else { default });
        let own = counted.limit.unwrap_or_else(of_others);
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
        what == What::Guesses && unlimited != pg_sys::InvalidOid && membership::may_act_as(role, unlimited)
    }
}

/// Refuses what would be masked for somebody whose budget it does not use.
///
/// Code of an analyst's is run by other people's statements, too: in maintenance (an index's expression, a materialized
/// view), and by what a foreign key changes. Its own role pays there, but not where it calls a SECURITY DEFINER function:
/// PostgreSQL forgets by whom that was called, so it would count for the function's owner alone, or for nobody. And a
/// group's budget, or that of a role that can't log in, is used by its members alone: each would be one more budget for
/// those who let code of theirs belong to it. As pgmask_refresher runs what the owners of the login table and of its
/// partitions want to be run.
pub(super) fn refuse_for_nobody(caller: &Caller, budgets: &[Budget]) -> Result<(), Error> {
    let Caller { roles: [authenticated, .., current], .. } = *caller;
    let is_maintenance = caller.is_marked(pg_sys::SECURITY_RESTRICTED_OPERATION);
    // A function with its owner's rights, what a foreign key changes, and triggers that wait.
    let is_switched = caller.is_marked(pg_sys::SECURITY_LOCAL_USERID_CHANGE);
    let is_foreign_key = caller.is_marked(pg_sys::SECURITY_NOFORCE_RLS);
    if own_roles::is_refresher(current) {
        return Err(Error::MaskedByRefresh);
    }
    if !(is_maintenance || is_switched) {
        return Ok(());
    }
    if is_switched && (is_maintenance || is_foreign_key) {
        return Err(Error::MaskedByMaintenance);
    }
    if authenticated == current || is_exempt(What::Guesses, current) {
        return Ok(());
    }
    let pays = budgets.iter().any(|budget| budget.role == authenticated);
    let is_for_nobody = match has_members(current) {
        true => !(pays && membership::may_act_as(authenticated, current)),
        false => !can_log_in(current) && (is_maintenance || !pays),
    };
    if !is_for_nobody {
        return Ok(());
    }
    let role = name_of(current).map_or_else(|| current.to_u32().to_string(), |name| name.shown());
    Err(Error::GroupsBudget { role })
}

fn can_log_in(role: pg_sys::Oid) -> bool {
    has_attribute(role, pg_sys::Anum_pg_authid_rolcanlogin)
}

/// Whether a role has an attribute, by its column of pg_authid.
fn has_attribute(role: pg_sys::Oid, column: u32) -> bool {
    let cache = pg_sys::SysCacheIdentifier::AUTHOID as i32;
    let mut is_null = false;
    // SAFETY: a look-up in PostgreSQL's cache; the tuple is released when it was read. The column is a bool and never NULL
    // (pg_authid.h).
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, role.into());
        if tuple.is_null() {
            return false;
        }
        let has = pg_sys::SysCacheGetAttr(cache, tuple, column as i16, &mut is_null).value() & 0xff != 0;
        pg_sys::ReleaseSysCache(tuple);
        has
    }
}

/// Whether anybody is a member: who made the role, and may only administer it, is none.
fn has_members(role: pg_sys::Oid) -> bool {
    let (cache, none) = (pg_sys::SysCacheIdentifier::AUTHMEMROLEMEM as i32, pg_sys::Datum::from(0));
    // SAFETY: a look-up in PostgreSQL's cache; the list has so many members, and is released.
    unsafe {
        let list = pg_sys::SearchSysCacheList(cache, 1, role.into(), none, none);
        let members = (*list).members.as_slice((*list).n_members as usize);
        let has_members = members.iter().any(|member| is_membership(&raw mut (**member).tuple));
        pg_sys::ReleaseCatCacheList(list);
        has_members
    }
}

/// # Safety
/// `membership` is a row of pg_auth_members.
#[cfg(not(feature = "pg15"))]
unsafe fn is_membership(membership: pg_sys::HeapTuple) -> bool {
    // pg_auth_members.h
    const MEMBER: i16 = 3;
    const INHERIT_OPTION: i16 = 6;
    const SET_OPTION: i16 = 7;
    let read = |column| {
        let (cache, mut is_null) = (pg_sys::SysCacheIdentifier::AUTHMEMROLEMEM as i32, false);
        // SAFETY: by the caller; an oid and bools, which are never NULL.
        unsafe { pg_sys::SysCacheGetAttr(cache, membership, column, &raw mut is_null) }
    };
    let is_set = |column| read(column).value() & 0xff != 0;
    // Whoever else may administer it may make itself a member, and may have been one.
    let makes_roles = || {
        let member = pg_sys::Oid::from(read(MEMBER).value() as u32);
        has_attribute(member, pg_sys::Anum_pg_authid_rolcreaterole)
    };
    is_set(INHERIT_OPTION) || is_set(SET_OPTION) || !makes_roles()
}

#[cfg(feature = "pg15")]
unsafe fn is_membership(_: pg_sys::HeapTuple) -> bool {
    true
}

/// Whether what `role` masks has no limit: lifting a hash without a key is a way to try guesses, too.
pub(crate) fn is_unlimited(role: pg_sys::Oid) -> bool {
    is_exempt(What::Guesses, role)
}
