//! Code that would run with the rights of a table's owner while tokens are lifted, though it is not the owner's. (What
//! the owner's own functions call, the owner answers for, as with every UPDATE.) In the login table it has no such rights.

use super::part::Part;
use crate::error::Error;
use crate::plan;
use crate::text::OwnedText;

/// What of others would run where rows of table $1 are updated, and where $2 says that the rows may move to other
/// partitions:
///
/// - Whoever owns another table of the same tree of partitions: triggers and indexes of a parent come to its
///   partitions.
/// - A trigger (anybody may be granted TRIGGER) whose function is neither the owner's nor a superuser's. One in C may
///   do what its arguments say. A WHEN clause may call what it likes, and who made it is not known: even functions
///   and operators of PostgreSQL's own run the SQL that they are given, or a cast of somebody's.
/// - A domain or a function that a column, a generated value, a check, an index or a rule uses: whoever owns it may give
///   it other conditions or another body. Types are looked into, and what is PostgreSQL's own is noted nowhere.
/// - A table whose foreign key follows an update (CASCADE, SET NULL): its triggers AFTER the update run in ours.
const CODE: &str = "WITH RECURSIVE given AS (
        SELECT c.oid, c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = $1
    ), tree AS (
        SELECT t.relid::pg_catalog.oid AS relid FROM pg_catalog.pg_partition_tree(pg_catalog.pg_partition_root($1)) AS t
        UNION SELECT $1
    ), parts(classid, objid) AS (
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, tree.relid FROM tree
        UNION ALL SELECT d.tableoid, d.oid FROM tree JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = tree.relid
        UNION ALL SELECT k.tableoid, k.oid FROM tree JOIN pg_catalog.pg_constraint AS k ON k.conrelid = tree.relid
        UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid FROM tree JOIN pg_catalog.pg_index AS i ON i.indrelid = tree.relid
        UNION ALL SELECT w.tableoid, w.oid FROM tree JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = tree.relid
    ), used(classid, objid) AS (
        SELECT d.refclassid, d.refobjid FROM parts JOIN pg_catalog.pg_depend AS d ON d.classid = parts.classid AND d.objid = parts.objid
        UNION
        SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, a.atttypid FROM tree JOIN pg_catalog.pg_attribute AS a ON a.attrelid = tree.relid
        UNION
        SELECT n.classid, n.objid FROM used CROSS JOIN LATERAL (
            SELECT y.tableoid, m.type FROM pg_catalog.pg_type AS y CROSS JOIN LATERAL (
                    VALUES (y.typbasetype), (y.typelem)
                    UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = y.typrelid AND y.typrelid <> 0
                    UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range AS r WHERE r.rngtypid = y.oid
                    UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range AS r WHERE r.rngmultitypid = y.oid
                ) AS m(type)
            WHERE used.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND y.oid = used.objid AND m.type <> 0
            UNION ALL
            SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_constraint AS k JOIN pg_catalog.pg_depend AS d ON d.classid = k.tableoid AND d.objid = k.oid
            WHERE used.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND k.contypid = used.objid
            UNION ALL
            SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, o.oprcode::pg_catalog.oid FROM pg_catalog.pg_operator AS o
            WHERE used.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND o.oid = used.objid
        ) AS n(classid, objid)
    ), code(name) AS (
        SELECT pg_catalog.format('table %s of the same partitions belongs to %s', c.oid::pg_catalog.regclass, c.relowner::pg_catalog.regrole)
        FROM given, tree JOIN pg_catalog.pg_class AS c ON c.oid = tree.relid
        WHERE c.relowner <> given.relowner
        UNION ALL
        SELECT pg_catalog.format('trigger %I on %s with function %s of %s', t.tgname, t.tgrelid::pg_catalog.regclass,
            p.oid::pg_catalog.regprocedure, p.proowner::pg_catalog.regrole)
        FROM given, pg_catalog.pg_trigger AS t
            JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
            JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
            JOIN pg_catalog.pg_roles AS o ON o.oid = p.proowner
        WHERE t.tgenabled <> 'D'
          AND (t.tgrelid = $1 AND t.tgtype & 16 <> 0 OR $2 AND t.tgtype & 28 <> 0 AND t.tgrelid IN (SELECT relid FROM tree))
          AND (p.proowner <> given.relowner AND NOT o.rolsuper OR l.lanname = 'c'
               OR t.tgqual IS NOT NULL)
        UNION ALL
        SELECT pg_catalog.format('domain %s of %s', y.oid::pg_catalog.regtype, y.typowner::pg_catalog.regrole)
        FROM given, used
            JOIN pg_catalog.pg_type AS y ON y.oid = used.objid AND y.typtype = 'd'
            JOIN pg_catalog.pg_roles AS o ON o.oid = y.typowner
        WHERE used.classid = y.tableoid AND y.typowner <> given.relowner AND NOT o.rolsuper
        UNION ALL
        SELECT pg_catalog.format('function %s of %s', p.oid::pg_catalog.regprocedure, p.proowner::pg_catalog.regrole)
        FROM given, used
            JOIN pg_catalog.pg_proc AS p ON p.oid = used.objid
            JOIN pg_catalog.pg_roles AS o ON o.oid = p.proowner
        WHERE used.classid = p.tableoid AND p.proowner <> given.relowner AND NOT o.rolsuper
        UNION ALL
        SELECT pg_catalog.format('foreign key %I of table %s of %s', k.conname, c.oid::pg_catalog.regclass, c.relowner::pg_catalog.regrole)
        FROM given, pg_catalog.pg_constraint AS k JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
        WHERE k.contype = 'f' AND k.confrelid IN (SELECT relid FROM tree) AND k.confupdtype NOT IN ('a', 'r')
          AND c.relowner <> given.relowner
    )
    SELECT pg_catalog.min(name) FROM code";

/// Refuses a part with such code. It is locked, so none can be added until the transaction ends.
pub(super) fn refuse(part: &Part) -> Result<(), Error> {
    if !part.on_behalf.runs_code_as_owner() {
        return Ok(());
    }
    let arguments = || vec![part.oid.into(), part.root.is_some().into()];
    match plan::catalog_row(CODE, arguments, |row| row.get_or_null::<OwnedText>(1))? {
        None => Ok(()),
        Some(OwnedText(code)) => Err(Error::CodeOfOthers {
            table: part.name.clone(),
            code: String::from_utf8_lossy(&code).into_owned(),
        }),
    }
}
