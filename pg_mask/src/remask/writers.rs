//! For whom the token of a hash without a key would be the answer to a guess: roles that may write into the table. A lifted
//! hash counts in their budgets, whoever calls `remask`: a value that one of them put in can't be told from one that an older
//! pipeline left. Whether they may read the table, too, does not matter: another may, who works with them.

use crate::error::Error;
use crate::{guesses, plan};
use pgrx::prelude::*;

/// The roles that may write into the table $1, by themselves or as a member of another role, directly or by way of a parent, a
/// view or a rule whose owner may write what is below; any column, since a trigger may make the one out of the other. Whose
/// code runs as rows are written, in this table or in a partition beside it, has them written by whoever writes: in the login
/// table by `pgmask_writer`, which nobody is, and which is left out there ($4). An owner may have whatever was revoked. So are
/// those that may mask without a limit, and PostgreSQL's own, as their members are found. Of the roles $3, who call, those that
/// may read one of the columns $2: not all ways to have something written can be told.
const WRITERS: &str = "WITH RECURSIVE relations (id) AS (
        SELECT $1
        UNION
        SELECT way.id FROM relations AS r CROSS JOIN LATERAL (
            SELECT i.inhparent FROM pg_inherits AS i WHERE i.inhrelid = r.id
            UNION ALL
            SELECT w.ev_class FROM pg_depend AS d JOIN pg_rewrite AS w ON w.oid = d.objid JOIN pg_class AS c ON c.oid = w.ev_class
            WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = r.id
              AND c.relkind <> 'm' AND has_any_column_privilege(c.relowner, r.id, 'INSERT, UPDATE')
        ) AS way (id)
    ), tree (id) AS (
        SELECT id FROM relations
        UNION SELECT i.inhrelid FROM tree AS t JOIN pg_inherits AS i ON i.inhparent = t.id
    ), code (classid, objid) AS (
        SELECT seed.classid, seed.objid FROM tree CROSS JOIN LATERAL (
            SELECT 'pg_trigger'::regclass::oid, g.oid FROM pg_trigger AS g WHERE g.tgrelid = tree.id
            UNION ALL SELECT 'pg_attrdef'::regclass, f.oid FROM pg_attrdef AS f WHERE f.adrelid = tree.id
            UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint AS k WHERE k.conrelid = tree.id
            UNION ALL SELECT 'pg_policy'::regclass, y.oid FROM pg_policy AS y WHERE y.polrelid = tree.id
            UNION ALL SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index AS i WHERE i.indrelid = tree.id
            UNION ALL SELECT 'pg_class'::regclass, tree.id -- the key of its partitions
            UNION ALL SELECT 'pg_rewrite'::regclass, w.oid FROM pg_rewrite AS w WHERE w.ev_class = tree.id
            UNION ALL SELECT 'pg_type'::regclass, a.atttypid FROM pg_attribute AS a WHERE a.attrelid = tree.id AND a.atttypid >= 16384
        ) AS seed (classid, objid)
        UNION
        SELECT used.classid, used.objid FROM code AS c CROSS JOIN LATERAL (
            SELECT d.refclassid, d.refobjid FROM pg_depend AS d
            WHERE d.classid = c.classid AND d.objid = c.objid AND d.refobjid >= 16384
              AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_cast'::regclass,
                  'pg_opclass'::regclass, 'pg_opfamily'::regclass)
            UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint AS k WHERE c.classid = 'pg_type'::regclass AND k.contypid = c.objid
        ) AS used (classid, objid)
    ), others (role, counts) AS MATERIALIZED (
        SELECT r.oid, r.oid >= 16384 AND (r.rolname <> 'pgmask_writer' OR NOT $4) FROM pg_roles AS r WHERE NOT r.rolsuper
    ), writers (role) AS MATERIALIZED (
        SELECT o.role FROM others AS o
        WHERE EXISTS (SELECT FROM relations AS r WHERE has_any_column_privilege(o.role, r.id, 'INSERT, UPDATE'))
           OR EXISTS (SELECT FROM tree AS t WHERE has_table_privilege(o.role, t.id, 'TRIGGER'))
           OR EXISTS (SELECT FROM relations AS r JOIN pg_class AS c ON c.oid = r.id WHERE c.relhasrules AND has_table_privilege(o.role, r.id, 'DELETE'))
        UNION SELECT p.proowner FROM code AS c JOIN pg_proc AS p ON p.oid = c.objid WHERE c.classid = 'pg_proc'::regclass
        UNION SELECT p.oprowner FROM code AS c JOIN pg_operator AS p ON p.oid = c.objid WHERE c.classid = 'pg_operator'::regclass
        UNION SELECT y.typowner FROM code AS c JOIN pg_type AS y ON y.oid = c.objid WHERE c.classid = 'pg_type'::regclass
        UNION SELECT c.relowner FROM tree JOIN pg_class AS c ON c.oid = tree.id AND c.relkind IN ('r', 'p')
    ), read_by (id) AS (
        SELECT $1
        UNION
        SELECT way.id FROM read_by AS r CROSS JOIN LATERAL (
            SELECT i.inhparent FROM pg_inherits AS i WHERE i.inhrelid = r.id
            UNION ALL -- views of a superuser's, who is asked for the right below, and what they store
            SELECT w.ev_class FROM pg_depend AS d JOIN pg_rewrite AS w ON w.oid = d.objid JOIN pg_class AS c ON c.oid = w.ev_class
            JOIN pg_roles AS o ON o.oid = c.relowner AND (o.rolsuper OR o.rolname = 'pgmask_refresher')
            WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = r.id
        ) AS way (id)
    ), readers (role) AS MATERIALIZED (
        SELECT o.role FROM others AS o
        WHERE EXISTS (SELECT FROM read_by AS r JOIN pg_class AS c ON c.oid = r.id JOIN pg_attribute AS a ON a.attrelid = r.id
                      WHERE a.attnum > 0 AND NOT a.attisdropped AND (c.relkind NOT IN ('r', 'p') OR a.attname = ANY ($2))
                        AND has_column_privilege(o.role, r.id, a.attnum, 'SELECT'))
    )
    SELECT o.role FROM others AS o
    WHERE o.counts
      AND (EXISTS (SELECT FROM writers AS w JOIN others AS n ON n.role = w.role WHERE pg_has_role(o.role, w.role, 'MEMBER'))
           OR o.role = ANY ($3) AND EXISTS (SELECT FROM readers AS r WHERE pg_has_role(o.role, r.role, 'MEMBER')))
    ORDER BY o.role";

/// Finds them for the table `oid` and its columns. Who calls is one of them: not all ways to have
/// something written can be told.
pub(super) fn find(
    oid: pg_sys::Oid,
    columns: Vec<String>,
    is_writers: bool,
) -> Result<Vec<pg_sys::Oid>, Error> {
    let callers = Vec::from(guesses::callers());
    let arguments = || vec![oid.into(), columns.into(), callers.into(), is_writers.into()];
    plan::catalog(WRITERS, arguments, |row| row.get(1))
}
