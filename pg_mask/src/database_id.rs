//! Which database something belongs to that is sealed or chained: moved to another one beside the same
//! keyring, it does not pass for that one's own.

use crate::error::Error;
use crate::plan;

pub(crate) type DatabaseId = [u8; 16];

const ALL: &str = "SELECT id FROM pgmask.database_id ORDER BY made_at DESC, id LIMIT 10000";

/// The ids of this database: the one that it got when the extension was created, first, and those of the
/// databases whose dumps were restored into it.
pub(crate) fn all() -> Result<Vec<DatabaseId>, Error> {
    plan::rows(ALL, Vec::new, |row| Ok(*row.get::<pgrx::Uuid>(1)?.as_bytes()))
}

/// The first of them: what is made here belongs to it.
pub(crate) fn own() -> Result<DatabaseId, Error> {
    all()?.first().copied().ok_or(Error::NoDatabaseId)
}
