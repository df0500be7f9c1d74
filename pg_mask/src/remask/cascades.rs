//! Foreign keys that follow what `remask` writes.

use super::part::Part;
use crate::error::Error;
use crate::plan;
use crate::text::OwnedText;

/// A foreign key that refers to one of the tables $1, and that changes its own table with it. Whatever column it refers to may
/// change with a token: generated values and triggers do that. Where rows may move to other partitions ($2), which takes them out
/// of theirs, so does what follows a deletion. A table that is locked for writing gets no other foreign key
/// until the transaction ends.
const CASCADES: &str =
    "SELECT pg_catalog.format('%I of table %s', k.conname, k.conrelid::pg_catalog.regclass)
    FROM pg_catalog.pg_constraint AS k
    WHERE k.contype = 'f' AND k.confrelid = ANY ($1)
      AND (k.confupdtype NOT IN ('a', 'r') OR $2 AND k.confdeltype NOT IN ('a', 'r'))
    ORDER BY k.conname, k.conrelid LIMIT 1";

/// Refuses them: PostgreSQL changes the other table as its owner, and runs whatever code is there as its owner, too,
/// whoever it was that called.
pub(super) fn refuse(part: &Part) -> Result<(), Error> {
    let tables: Vec<_> = std::iter::once(part.oid).chain(part.root.as_ref().map(|root| root.oid)).collect();
    let found = plan::catalog(
        CASCADES,
        || vec![tables.into(), part.root.is_some().into()],
        |row| row.get::<OwnedText>(1),
    )?;
    match found.into_iter().next() {
        None => Ok(()),
        Some(OwnedText(key)) => {
            let key = String::from_utf8_lossy(&key).into_owned();
            Err(Error::Cascades { table: part.name.clone(), key })
        }
    }
}
