//! Whether all code that runs when rows of a table are updated is its owner's. Only then does it run as the owner.

use crate::error::Error;
use crate::plan;
use pgrx::prelude::*;

/// Whether there is nothing in table $1 of $2, and in the partitions that it is one of, but triggers that are known to be the
/// owner's. What is not known is taken for somebody else's:
///
/// - A type that somebody made: it brings conditions, casts and functions of its maker's, which PostgreSQL may look up as it
///   runs.
/// - A rule: it does whatever it says to other tables.
/// - An expression in a check, a generated value, an index, statistics or a partition key: not all that it uses is noted, and
///   PostgreSQL's own functions run SQL, or look up what others have made, too.
/// - An operator class that somebody made.
/// - A trigger with a condition, with a function in C, or of neither the owner nor a superuser, or with arguments where others
///   may make triggers (who made it is not known).
const IS_OWNERS: &str = "WITH RECURSIVE tree (id) AS (
        SELECT COALESCE((SELECT pg_partition_root($1)::oid), $1)
        UNION SELECT i.inhrelid FROM tree JOIN pg_inherits AS i ON i.inhparent = tree.id JOIN pg_class AS c ON c.oid = i.inhrelid AND c.relispartition
    ), tables AS (
        SELECT c.* FROM tree JOIN pg_class AS c ON c.oid = tree.id
    )
    SELECT NOT EXISTS (SELECT FROM tables AS t WHERE t.relowner <> $2)
       AND NOT EXISTS (SELECT FROM tree JOIN pg_rewrite AS w ON w.ev_class = tree.id)
       AND NOT EXISTS (SELECT FROM tree JOIN pg_attribute AS a ON a.attrelid = tree.id
                       WHERE a.attnum > 0 AND NOT a.attisdropped AND (a.atttypid >= 16384 OR a.attgenerated <> ''))
       AND NOT EXISTS (SELECT FROM tree JOIN pg_constraint AS k ON k.conrelid = tree.id WHERE k.contype IN ('c', 'x'))
       AND NOT EXISTS (SELECT FROM tree JOIN pg_index AS i ON i.indrelid = tree.id
                       WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL OR EXISTS (SELECT FROM unnest(i.indclass::oid[]) AS o WHERE o >= 16384))
       AND NOT EXISTS (SELECT FROM tree JOIN pg_statistic_ext AS s ON s.stxrelid = tree.id WHERE s.stxexprs IS NOT NULL)
       AND NOT EXISTS (SELECT FROM tree JOIN pg_partitioned_table AS p ON p.partrelid = tree.id
                       WHERE p.partexprs IS NOT NULL OR EXISTS (SELECT FROM unnest(p.partclass::oid[]) AS o WHERE o >= 16384))
       AND NOT EXISTS (
            SELECT FROM tables AS t JOIN pg_trigger AS g ON g.tgrelid = t.oid
                JOIN pg_proc AS p ON p.oid = g.tgfoid JOIN pg_language AS l ON l.oid = p.prolang JOIN pg_roles AS r ON r.oid = p.proowner
            WHERE g.tgenabled <> 'D' AND NOT (g.tgisinternal AND p.oid < 16384)
              AND (g.tgqual IS NOT NULL OR p.oid < 16384 OR l.lanname = 'c' OR p.proowner <> $2 AND NOT r.rolsuper
                   OR g.tgnargs > 0 AND EXISTS (SELECT FROM aclexplode(t.relacl) AS x WHERE x.privilege_type = 'TRIGGER' AND x.grantee <> $2)))";

/// Says so of a table that is locked, so that nothing can be added until the transaction ends.
pub(super) fn is_all(table: pg_sys::Oid, owner: pg_sys::Oid) -> Result<bool, Error> {
    plan::catalog_row(IS_OWNERS, || vec![table.into(), owner.into()], |row| row.get(1))
}
