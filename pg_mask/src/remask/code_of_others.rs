//! Code that would run with the rights of a table's owner while tokens are lifted, though it is not the owner's. (What
//! the owner's own code calls, the owner answers for, as with every UPDATE.) In the login table it has no such rights.

use super::part::Part;
use crate::error::Error;
use crate::plan;
use crate::text::OwnedText;
use pgrx::prelude::*;

/// What of others would run where rows of table $1 are updated, of which the columns, quoted, are $2, and where $3 says that
/// the rows may move to other partitions:
///
/// - Whoever owns another table of the same tree of partitions: triggers and indexes of a parent come to its
///   partitions.
/// - A trigger (anybody may be granted TRIGGER) whose function is neither the owner's nor a superuser's. One in C may
///   do what its arguments say. A WHEN clause may call what it likes, and who made it is not known: even functions
///   and operators of PostgreSQL's own run the SQL that they are given, or a cast of somebody's.
/// - A column's domain, or one that it is made from, whose owner may give it conditions.
/// - A table whose foreign key follows an update (CASCADE, SET NULL): its triggers AFTER the update run in ours.
const CODE: &str = "WITH RECURSIVE given AS (
        SELECT c.oid, c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = $1
    ), tree AS (
        SELECT t.relid::pg_catalog.oid AS relid FROM pg_catalog.pg_partition_tree(pg_catalog.pg_partition_root($1)) AS t
        UNION SELECT $1
    ), types(attname, type) AS (
        SELECT a.attname, a.atttypid FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = $1 AND a.attnum > 0 AND (a.attgenerated <> '' OR pg_catalog.quote_ident(a.attname) = ANY ($2))
        UNION SELECT a.attname, y.typbasetype FROM types AS a
            JOIN pg_catalog.pg_type AS y ON y.oid = a.type AND y.typtype = 'd'
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
          AND (t.tgrelid = $1 AND t.tgtype & 16 <> 0 OR $3 AND t.tgtype & 28 <> 0 AND t.tgrelid IN (SELECT relid FROM tree))
          AND (p.proowner <> given.relowner AND NOT o.rolsuper OR l.lanname = 'c'
               OR t.tgqual IS NOT NULL)
        UNION ALL
        SELECT pg_catalog.format('column %I is of domain %s of %s', a.attname, y.oid::pg_catalog.regtype, y.typowner::pg_catalog.regrole)
        FROM given, types AS a
            JOIN pg_catalog.pg_type AS y ON y.oid = a.type AND y.typtype = 'd'
            JOIN pg_catalog.pg_roles AS o ON o.oid = y.typowner
        WHERE y.typowner <> given.relowner AND NOT o.rolsuper
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
    // SAFETY: a look at the backend's own state. Such a transaction reads the catalogs as they were.
    if unsafe { pg_sys::XactIsoLevel } > pg_sys::XACT_READ_COMMITTED as i32 {
        return Err(Error::NotReadCommitted);
    }
    let columns: Vec<String> = part.columns.iter().map(|column| column.name.clone()).collect();
    let arguments = || vec![part.oid.into(), columns.into(), part.root.is_some().into()];
    match plan::one_row(CODE, arguments, |row| row.get_or_null::<OwnedText>(1))? {
        None => Ok(()),
        Some(OwnedText(code)) => Err(Error::CodeOfOthers {
            table: part.name.clone(),
            code: String::from_utf8_lossy(&code).into_owned(),
        }),
    }
}
