//! For whom the token of a hash without a key would be the answer to a guess: roles that may write into the
//! table and read it. A lifted hash counts in their budgets, whoever calls `remask`: a value that one of them put
//! in can't be told from one that an older pipeline left.

use crate::error::Error;
use crate::{plan, run_as};
use pgrx::prelude::*;

/// The roles that may write a column named in $2 of the table $1 and that may read one: by themselves or as a
/// member of another role, directly or by way of a parent, a view or a rule. Not `pgmask_writer`, which nobody
/// is; not those that may mask without a limit; and not PostgreSQL's own, as their members are found.
const WRITERS: &str = "WITH RECURSIVE relations (id) AS (
        SELECT $1
        UNION
        SELECT way.id FROM relations AS r CROSS JOIN LATERAL (
            SELECT i.inhparent FROM pg_inherits AS i WHERE i.inhrelid = r.id
            UNION ALL
            SELECT w.ev_class FROM pg_depend AS d JOIN pg_rewrite AS w ON w.oid = d.objid
            WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = r.id
        ) AS way (id)
    ), columns (relation, number) AS (
        SELECT a.attrelid, a.attnum
        FROM relations AS r JOIN pg_class AS c ON c.oid = r.id JOIN pg_attribute AS a ON a.attrelid = r.id
        WHERE a.attnum > 0 AND NOT a.attisdropped AND (c.relkind NOT IN ('r', 'p') OR a.attname = ANY ($2))
    ), holders (role, writes, reads) AS (
        SELECT r.oid,
            EXISTS (SELECT FROM columns AS c WHERE has_column_privilege(r.oid, c.relation, c.number, 'INSERT, UPDATE'))
                OR EXISTS (SELECT FROM relations AS t WHERE has_table_privilege(r.oid, t.id, 'TRIGGER')),
            EXISTS (SELECT FROM columns AS c WHERE has_column_privilege(r.oid, c.relation, c.number, 'SELECT'))
        FROM pg_roles AS r WHERE NOT r.rolsuper AND r.rolname <> 'pgmask_writer'
    )
    SELECT r.oid FROM pg_roles AS r
    WHERE NOT r.rolsuper AND r.oid >= 16384 AND r.rolname <> 'pgmask_writer'
      AND EXISTS (SELECT FROM holders AS h WHERE h.writes AND pg_has_role(r.oid, h.role, 'MEMBER'))
      AND EXISTS (SELECT FROM holders AS h WHERE h.reads AND pg_has_role(r.oid, h.role, 'MEMBER'))
      AND NOT EXISTS (SELECT FROM pg_roles AS s WHERE (s.rolsuper OR s.rolname = 'pgmask_unlimited')
                      AND pg_has_role(r.oid, s.oid, 'MEMBER'))
    ORDER BY r.oid";

/// Finds them for the table `oid`, which `owner` owns, and its columns.
pub(super) fn find(
    oid: pg_sys::Oid,
    owner: pg_sys::Oid,
    columns: &[String],
) -> Result<Vec<pg_sys::Oid>, Error> {
    let columns = Vec::from(columns);
    // As the owner for the pinned search path: what is asked for, each role may know.
    run_as::restricted(owner, || plan::rows(WRITERS, || vec![oid.into(), columns.into()], |row| row.get(1)))
}
