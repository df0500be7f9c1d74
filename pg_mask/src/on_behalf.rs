//! Working on a table with its owner's rights to that table.
//!
//! Its code (triggers, checks, functions in indexes) may be that of others, and then it runs as the role that logins are
//! inserted as, which may do nothing worth taking: whoever made that code gains nothing by it, though the owner may be a
//! superuser.

use crate::error::Error;
use crate::named_tables::Meant;
use crate::own_roles::RoleOfCode;
use crate::role_of_code::{self, Powerless};
use crate::subtransaction::attempt;
use pgrx::prelude::*;

pub(crate) struct OnBehalf {
    owner: pg_sys::Oid,
    /// As whom code of the table runs, if not as the owner.
    role: Option<Powerless>,
}

impl OnBehalf {
    /// Code of the table runs as its owner, for whom nobody else may call.
    pub(crate) fn with_owners_code(owner: pg_sys::Oid) -> Self {
        Self { owner, role: None }
    }

    /// Code of the table may be anybody's, and runs as a role for that.
    pub(crate) fn with_code_as(
        role: RoleOfCode,
        owner: pg_sys::Oid,
        table: pg_sys::Oid,
    ) -> Result<Self, Error> {
        Ok(Self { owner, role: Some(Powerless::find(role, table)?) })
    }

    /// What a statement in [`OnBehalf::run`] names.
    pub(crate) fn meant(&self, table: pg_sys::Oid) -> Meant {
        Meant::with_rights_of(self.owner, &[table])
    }

    /// Runs `work`. An error goes on its way, once what code of the table had made ready is dropped: whoever calls may go on after it.
    pub(crate) fn run<R>(&self, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        let work = || match self.role {
            Some(role) => role.maintain(work),
            None => role_of_code::as_owner(self.owner, work),
        };
        attempt(work, |_| false).unwrap_or(Err(Error::Unreadable)) // no error is taken for a refusal
    }
}
