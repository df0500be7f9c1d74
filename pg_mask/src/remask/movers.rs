//! Triggers of a partition that decide where its rows go, where `remask` updates the root of the partitions.

use super::part::Part;
use crate::error::Error;
use crate::plan;
use crate::text::OwnedText;

/// A trigger that changes rows of partition $1 before they are updated, and that is not all the owner's of the root, $2: one of the root's
/// may also have a superuser's function.
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
    JOIN pg_catalog.pg_roles AS o ON o.oid = p.proowner
    WHERE made.parent = 0 AND CASE WHEN made.relation = root.oid THEN p.proowner <> root.relowner AND NOT o.rolsuper
        ELSE c.relowner <> root.relowner OR p.proowner <> root.relowner END
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
