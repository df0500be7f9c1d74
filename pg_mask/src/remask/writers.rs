//! For whom the token of a hash without a key would be the answer to a guess: roles that may write into the
//! table, and read it or be told by it (by a unique key, for example) whether a token is there. A lifted hash counts in their budgets, whoever calls `remask`: a value that one of them put
//! in can't be told from one that an older pipeline left.

use crate::error::Error;
use crate::{guesses, plan, run_as};
use pgrx::prelude::*;

/// The roles that may write a column named in $2 of the table $1 and that may read one: by themselves or as a
/// member of another role, directly or by way of a parent, a view or a rule. Where such a column is part of a unique index,
/// of an exclusion constraint or of a foreign key, whoever writes is told what is there, and need not read it. Who may have
/// code run as rows are written, in this table or in a partition beside it, has them written by whoever writes: by
/// `pgmask_writer`, which nobody is, and which is left out. An owner may have whatever was revoked. So are those that may mask without a limit, and PostgreSQL's own,
/// as their members are found.
const WRITERS: &str = "WITH RECURSIVE relations (id) AS (
        SELECT $1
        UNION
        SELECT way.id FROM relations AS r CROSS JOIN LATERAL (
            SELECT i.inhparent FROM pg_inherits AS i WHERE i.inhrelid = r.id
            UNION ALL
            SELECT w.ev_class FROM pg_depend AS d JOIN pg_rewrite AS w ON w.oid = d.objid JOIN pg_class AS c ON c.oid = w.ev_class AND c.relkind <> 'm'
            WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = r.id
        ) AS way (id)
    ), tree (id) AS (
        SELECT id FROM relations
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
    ), authors (role) AS MATERIALIZED (
        SELECT p.proowner FROM code AS c
        JOIN pg_depend AS d ON d.classid = c.classid AND d.objid = c.objid AND d.refclassid = 'pg_proc'::regclass
        JOIN pg_proc AS p ON p.oid = d.refobjid
        UNION SELECT y.typowner FROM tree JOIN pg_attribute AS a ON a.attrelid = tree.id JOIN pg_type AS y ON y.oid = a.atttypid
        WHERE y.oid >= 16384
    ), owners (role) AS MATERIALIZED (
        SELECT c.relowner FROM tree JOIN pg_class AS c ON c.oid = tree.id AND c.relkind IN ('r', 'p')
    ), columns (relation, number) AS MATERIALIZED (
        SELECT a.attrelid, a.attnum
        FROM relations AS r JOIN pg_class AS c ON c.oid = r.id JOIN pg_attribute AS a ON a.attrelid = r.id
        WHERE a.attnum > 0 AND NOT a.attisdropped AND (c.relkind NOT IN ('r', 'p') OR c.relhasrules OR a.attname = ANY ($2))
    ), others (role) AS MATERIALIZED (
        SELECT r.oid FROM pg_roles AS r WHERE NOT r.rolsuper AND r.rolname <> 'pgmask_writer'
    ), writers (role) AS MATERIALIZED (
        SELECT o.role FROM others AS o
        WHERE EXISTS (SELECT FROM columns AS c WHERE has_column_privilege(o.role, c.relation, c.number, 'INSERT, UPDATE'))
           OR EXISTS (SELECT FROM tree AS t WHERE has_table_privilege(o.role, t.id, 'TRIGGER'))
           OR EXISTS (SELECT FROM relations AS r JOIN pg_class AS c ON c.oid = r.id WHERE c.relhasrules AND has_table_privilege(o.role, r.id, 'DELETE'))
           OR EXISTS (SELECT FROM authors AS a WHERE a.role = o.role)
           OR EXISTS (SELECT FROM owners AS w WHERE w.role = o.role)
    ), may_write (role) AS MATERIALIZED (
        SELECT o.role FROM others AS o WHERE o.role >= 16384 AND EXISTS (SELECT FROM writers AS w WHERE pg_has_role(o.role, w.role, 'MEMBER'))
        UNION SELECT o.role FROM others AS o WHERE o.role >= 16384 AND o.role = ANY ($3)
    ), tells (it) AS MATERIALIZED (
        SELECT EXISTS (SELECT FROM columns AS c JOIN pg_index AS i ON i.indrelid = c.relation
                       WHERE (i.indisunique OR i.indisexclusion) AND (c.number = ANY (i.indkey::int2[]) OR i.indexprs IS NOT NULL))
            OR EXISTS (SELECT FROM columns AS c JOIN pg_constraint AS k ON k.contype = 'f'
                       AND (k.conrelid = c.relation AND c.number = ANY (k.conkey) OR k.confrelid = c.relation AND c.number = ANY (k.confkey)))
    ), readers (role) AS MATERIALIZED (
        SELECT o.role FROM others AS o
        WHERE EXISTS (SELECT FROM may_write)
          AND (EXISTS (SELECT FROM columns AS c WHERE has_column_privilege(o.role, c.relation, c.number, 'SELECT'))
               OR EXISTS (SELECT FROM owners AS w WHERE w.role = o.role)
               -- Code of theirs is shown the row as it was and as it is.
               OR EXISTS (SELECT FROM tree AS t WHERE has_table_privilege(o.role, t.id, 'TRIGGER'))
               OR EXISTS (SELECT FROM authors AS a WHERE a.role = o.role))
    )
    SELECT m.role FROM may_write AS m
    WHERE ((SELECT it FROM tells) OR EXISTS (SELECT FROM readers AS h WHERE pg_has_role(m.role, h.role, 'MEMBER')))
    ORDER BY m.role";

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
