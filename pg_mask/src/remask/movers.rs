//! Triggers of a partition that decide where its rows go, where `remask` updates the root of the partitions.

use super::part::Part;
use crate::error::Error;
use crate::plan;
use crate::text::OwnedText;

/// A trigger that changes rows of partition $1 before they are updated, and that is not one of the root's, $2, or all its owner's.
const MOVERS: &str = "WITH RECURSIVE made (id, relation, parent, named) AS (
        SELECT g.oid, g.tgrelid, g.tgparentid, g.tgname
        FROM pg_catalog.pg_trigger AS g
        WHERE g.tgrelid = $1 AND g.tgenabled <> 'D' AND g.tgtype & 19 = 19 -- for each row, before an update
        UNION ALL
        SELECT g.oid, g.tgrelid, g.tgparentid, made.named
        FROM made JOIN pg_catalog.pg_trigger AS g ON g.oid = made.parent
    )
    SELECT made.named::pg_catalog.text
    FROM made JOIN pg_catalog.pg_trigger AS g ON g.oid = made.id
    JOIN pg_catalog.pg_class AS c ON c.oid = made.relation JOIN pg_catalog.pg_class AS root ON root.oid = $2
    JOIN pg_catalog.pg_proc AS p ON p.oid = g.tgfoid
    WHERE made.parent = 0 AND made.relation <> root.oid AND (c.relowner <> root.relowner OR p.proowner <> root.relowner)
    ORDER BY 1 LIMIT 1";

/// Refuses them: the update has the rights of the root's owner, and a row that such a trigger changes would be written into whichever
/// partition it says.
pub(super) fn refuse(part: &Part) -> Result<(), Error> {
    let Some(root) = &part.root else { return Ok(()) };
    let read = |row: &plan::Row<'_>| row.get::<OwnedText>(1);
    match plan::catalog(MOVERS, || vec![part.oid.into(), root.oid.into()], read)?.pop() {
        None => Ok(()),
        Some(OwnedText(trigger)) => {
            let trigger = String::from_utf8_lossy(&trigger).into_owned();
            Err(Error::Movers { table: part.name.clone(), trigger, root: root.name.clone() })
        }
    }
}
