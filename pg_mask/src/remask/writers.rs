//! For whom the token of a hash without a key would be the answer to a guess: roles that may write into the table. A lifted
//! hash counts in their budgets, whoever calls `remask`: a value that one of them put in can't be told from one that an older
//! pipeline left. Whether they may read the table, too, does not matter: another may, who works with them.

use crate::error::Error;
use crate::{guesses, plan, run_as};
use pgrx::prelude::*;

/// The roles that may write into the table $1, by themselves or as a member of another role, directly or by way of a parent, a
/// view or a rule; any column, since a trigger may make the one out of the other. Who may have code run as rows are written, in
/// this table or in a partition beside it, has them written by whoever writes: by `pgmask_writer`, which nobody is, and which is
/// left out. An owner may have whatever was revoked. So are those that may mask without a limit, and PostgreSQL's own, as
/// their members are found. Of the roles $3, who call, those that may read one of the columns $2, also by way of a materialized
/// view: not all ways to have something written can be told.
const WRITERS: &str = "WITH RECURSIVE relations (id, is_stored) AS (
        SELECT $1, false
        UNION
        SELECT way.id, way.is_stored FROM relations AS r CROSS JOIN LATERAL (
            SELECT i.inhparent, r.is_stored FROM pg_inherits AS i WHERE i.inhrelid = r.id
            UNION ALL
            SELECT w.ev_class, r.is_stored OR c.relkind = 'm'
            FROM pg_depend AS d JOIN pg_rewrite AS w ON w.oid = d.objid JOIN pg_class AS c ON c.oid = w.ev_class
            WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = r.id
        ) AS way (id, is_stored)
    ), tree (id) AS (
        SELECT id FROM relations WHERE NOT is_stored
        UNION SELECT i.inhrelid FROM tree AS t JOIN pg_inherits AS i ON i.inhparent = t.id
    ), code (classid, objid) AS MATERIALIZED (
        SELECT 'pg_trigger'::regclass, g.oid FROM tree JOIN pg_trigger AS g ON g.tgrelid = tree.id
        UNION ALL SELECT 'pg_attrdef'::regclass, f.oid FROM tree JOIN pg_attrdef AS f ON f.adrelid = tree.id
        UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM tree JOIN pg_constraint AS k ON k.conrelid = tree.id
        UNION ALL SELECT 'pg_policy'::regclass, y.oid FROM tree JOIN pg_policy AS y ON y.polrelid = tree.id
        UNION ALL SELECT 'pg_class'::regclass, i.indexrelid FROM tree JOIN pg_index AS i ON i.indrelid = tree.id
        UNION ALL SELECT 'pg_class'::regclass, tree.id FROM tree -- the key of its partitions
        UNION ALL SELECT 'pg_rewrite'::regclass, w.oid FROM tree JOIN pg_rewrite AS w ON w.ev_class = tree.id
        UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM tree JOIN pg_attribute AS a ON a.attrelid = tree.id JOIN pg_constraint AS k ON k.contypid = a.atttypid
    ), others (role) AS MATERIALIZED (
        SELECT r.oid FROM pg_roles AS r WHERE NOT r.rolsuper AND r.rolname <> 'pgmask_writer'
    ), writers (role) AS MATERIALIZED (
        SELECT o.role FROM others AS o
        WHERE EXISTS (SELECT FROM relations AS r WHERE NOT r.is_stored AND has_any_column_privilege(o.role, r.id, 'INSERT, UPDATE'))
           OR EXISTS (SELECT FROM tree AS t WHERE has_table_privilege(o.role, t.id, 'TRIGGER'))
           OR EXISTS (SELECT FROM relations AS r JOIN pg_class AS c ON c.oid = r.id
                      WHERE c.relhasrules AND NOT r.is_stored AND has_table_privilege(o.role, r.id, 'DELETE'))
        UNION SELECT p.proowner FROM code AS c
        JOIN pg_depend AS d ON d.classid = c.classid AND d.objid = c.objid AND d.refclassid = 'pg_proc'::regclass
        JOIN pg_proc AS p ON p.oid = d.refobjid
        UNION SELECT y.typowner FROM tree JOIN pg_attribute AS a ON a.attrelid = tree.id JOIN pg_type AS y ON y.oid = a.atttypid
        WHERE y.oid >= 16384
        UNION SELECT c.relowner FROM tree JOIN pg_class AS c ON c.oid = tree.id AND c.relkind IN ('r', 'p')
    ), readers (role) AS MATERIALIZED (
        SELECT o.role FROM others AS o
        WHERE EXISTS (SELECT FROM relations AS r JOIN pg_class AS c ON c.oid = r.id JOIN pg_attribute AS a ON a.attrelid = r.id
                      WHERE a.attnum > 0 AND NOT a.attisdropped AND (c.relkind NOT IN ('r', 'p') OR a.attname = ANY ($2))
                        AND has_column_privilege(o.role, r.id, a.attnum, 'SELECT'))
    )
    SELECT o.role FROM others AS o
    WHERE o.role >= 16384
      AND (EXISTS (SELECT FROM writers AS w JOIN others AS n ON n.role = w.role WHERE pg_has_role(o.role, w.role, 'MEMBER'))
           OR o.role = ANY ($3) AND EXISTS (SELECT FROM readers AS r WHERE pg_has_role(o.role, r.role, 'MEMBER')))
    ORDER BY o.role";

/// Finds them for the table `oid`, which `owner` owns, and its columns. Who calls is one of them: not all ways to have
/// something written can be told.
pub(super) fn find(
    oid: pg_sys::Oid,
    owner: pg_sys::Oid,
    columns: Vec<String>,
) -> Result<Vec<pg_sys::Oid>, Error> {
    let callers = Vec::from(guesses::callers());
    // As the owner for the pinned search path: what is asked for, each role may know.
    run_as::restricted(owner, || {
        plan::catalog(WRITERS, || vec![oid.into(), columns.into(), callers.into()], |row| row.get(1))
    })
}
