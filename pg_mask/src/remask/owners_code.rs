//! Whether all code that runs when rows of a table are updated is its owner's. Only then does it run as the owner.

use crate::error::Error;
use crate::plan;
use pgrx::prelude::*;

/// Whether there is nothing in table $1 of $2, and in the partitions that it is one of, but what is known to be the owner's,
/// a superuser's or PostgreSQL's own. What is not known is taken for somebody else's:
///
/// - A type that somebody made: it brings conditions, casts and functions of its maker's, which PostgreSQL may look up as it
///   runs.
/// - A rule: it does whatever it says to other tables.
/// - A trigger with a condition, with a function in C or somebody else's, or with arguments where others may make triggers
///   (who made it is not known).
/// - A default, a check, an index, statistics or a partition key that use what somebody else made, or PostgreSQL's functions that run SQL.
const IS_OWNERS: &str = "WITH RECURSIVE tree (id) AS (
        SELECT COALESCE((SELECT pg_partition_root($1)::oid), $1)
        UNION SELECT i.inhrelid FROM tree JOIN pg_inherits AS i ON i.inhparent = tree.id JOIN pg_class AS c ON c.oid = i.inhrelid AND c.relispartition
    ), trusted (role) AS (
        SELECT $2 UNION SELECT r.oid FROM pg_roles AS r WHERE r.rolsuper
    ), tables AS (
        SELECT c.* FROM tree JOIN pg_class AS c ON c.oid = tree.id
    ), parts (classid, objid, definition) AS (
        SELECT 'pg_class'::regclass::oid, tree.id, pg_get_partkeydef(tree.id) FROM tree
        UNION ALL SELECT d.tableoid, d.oid, pg_get_expr(d.adbin, d.adrelid) FROM tree JOIN pg_attrdef AS d ON d.adrelid = tree.id
        UNION ALL SELECT k.tableoid, k.oid, pg_get_constraintdef(k.oid) FROM tree JOIN pg_constraint AS k ON k.conrelid = tree.id
        UNION ALL SELECT 'pg_class'::regclass, i.indexrelid, pg_get_indexdef(i.indexrelid) FROM tree JOIN pg_index AS i ON i.indrelid = tree.id
        UNION ALL SELECT s.tableoid, s.oid, pg_get_statisticsobjdef(s.oid) FROM tree JOIN pg_statistic_ext AS s ON s.stxrelid = tree.id
    )
    SELECT NOT EXISTS (SELECT FROM tables AS t WHERE t.relowner <> $2)
       AND NOT EXISTS (SELECT FROM tree JOIN pg_rewrite AS w ON w.ev_class = tree.id)
       AND NOT EXISTS (SELECT FROM tree JOIN pg_attribute AS a ON a.attrelid = tree.id WHERE a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384)
       AND NOT EXISTS (
            SELECT FROM tables AS t JOIN pg_trigger AS g ON g.tgrelid = t.oid
                JOIN pg_proc AS p ON p.oid = g.tgfoid JOIN pg_language AS l ON l.oid = p.prolang
            WHERE g.tgenabled <> 'D' AND NOT (g.tgisinternal AND p.oid < 16384)
              AND (g.tgqual IS NOT NULL OR p.oid < 16384 OR l.lanname = 'c' OR p.proowner NOT IN (SELECT role FROM trusted)
                   OR g.tgnargs > 0 AND EXISTS (SELECT FROM aclexplode(t.relacl) AS x WHERE x.privilege_type = 'TRIGGER' AND x.grantee <> $2)))
       AND NOT EXISTS (
            SELECT FROM parts JOIN pg_depend AS d ON d.classid = parts.classid AND d.objid = parts.objid
                LEFT JOIN pg_proc AS p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
            WHERE d.refobjid >= 16384 AND d.refclassid NOT IN ('pg_class'::regclass, 'pg_constraint'::regclass, 'pg_trigger'::regclass, 'pg_namespace'::regclass, 'pg_collation'::regclass)
              AND (p.oid IS NULL OR p.proowner NOT IN (SELECT role FROM trusted)))
       AND NOT EXISTS (SELECT FROM parts WHERE parts.definition ~ '_to_xml|ts_rewrite|ts_stat')";

/// Says so of a table that is locked, so that nothing can be added until the transaction ends.
pub(super) fn is_all(table: pg_sys::Oid, owner: pg_sys::Oid) -> Result<bool, Error> {
    plan::catalog_row(IS_OWNERS, || vec![table.into(), owner.into()], |row| row.get(1))
}
