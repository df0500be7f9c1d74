//! Working on somebody's table with its owner's rights to that table.
//!
//! For whom the table does not belong to, that is the login table only, and then its code (triggers, checks, functions
//! in indexes) runs as the role that rows are inserted as, which may do nothing worth taking: whoever made that code
//! gains nothing by it, though the owner may be a superuser.

use crate::error::Error;
use crate::named_tables::Meant;
use crate::run_as;
use crate::writer::Writer;
use pgrx::prelude::*;

pub(crate) struct OnBehalf {
    owner: pg_sys::Oid,
    /// As whom code of the table runs, if not as the owner.
    writer: Option<Writer>,
}

impl OnBehalf {
    /// For a table whose owner calls: what it does runs as the owner, as with an UPDATE of the owner's own.
    pub(crate) fn of_owner(owner: pg_sys::Oid) -> Self {
        Self { owner, writer: None }
    }

    /// For the login table. Where there are no roles (sql/00_roles.sql), its owner may call.
    pub(crate) fn of_login_table(owner: pg_sys::Oid) -> Result<Self, Error> {
        match Writer::find() {
            Ok(writer) => Ok(Self { owner, writer: Some(writer) }),
            // SAFETY: a look-up.
            Err(Error::NoWriter) if unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) } => {
                Ok(Self::of_owner(owner))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether code of the table has the owner's rights.
    pub(crate) fn runs_code_as_owner(&self) -> bool {
        self.writer.is_none()
    }

    /// What a statement in [`OnBehalf::run`] names.
    pub(crate) fn meant(&self, table: pg_sys::Oid) -> Meant {
        Meant::with_rights_of(self.owner, &[table])
    }

    pub(crate) fn run<R>(&self, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        match self.writer {
            Some(writer) => writer.maintain(work),
            None => run_as::restricted(self.owner, work),
        }
    }
}
