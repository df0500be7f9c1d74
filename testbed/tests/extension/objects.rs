//! Everything that belongs to the extension in a database, so that two installations of it can be compared.

use crate::common::texts;
use tokio_postgres::Client;

/// A line an object: what it is, its definition, owner, rights, the rights that a dump takes for granted, comment.
const OBJECTS: &str = "
    WITH member AS (
        SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS object
        FROM pg_depend d
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
          AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_mask')
    ), described AS (
        SELECT m.*, pg_get_functiondef(p.oid) AS definition, p.proowner AS owner, coalesce(p.proacl, acldefault('f', p.proowner)) AS acl
        FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
        UNION ALL
        SELECT m.*, '', n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner))
        FROM member m JOIN pg_namespace n ON m.classid = 'pg_namespace'::regclass AND n.oid = m.objid
        UNION ALL
        SELECT m.*, concat_ws(' ', c.relkind, c.relpersistence, c.reloptions, pg_get_viewdef(c.oid),
                pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid),
                (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                    a.attidentity, a.attacl, pg_get_expr(e.adbin, e.adrelid), col_description(c.oid, a.attnum)), ', ' ORDER BY a.attnum)
                 FROM pg_attribute a LEFT JOIN pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
                (SELECT string_agg(pg_get_constraintdef(o.oid), ', ' ORDER BY pg_get_constraintdef(o.oid))
                 FROM pg_constraint o WHERE o.conrelid = c.oid),
                (SELECT string_agg(pg_get_indexdef(i.indexrelid), ', ' ORDER BY i.indexrelid::regclass::text)
                 FROM pg_index i WHERE i.indrelid = c.oid),
                (SELECT string_agg(pg_get_triggerdef(t.oid) || t.tgenabled::text, ', ' ORDER BY t.tgname)
                 FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
                (SELECT concat_ws(' ', s.seqtypid::regtype, s.seqincrement, s.seqcycle) FROM pg_sequence s WHERE s.seqrelid = c.oid)),
            c.relowner, coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))
        FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
        UNION ALL
        SELECT m.*, '', NULL, NULL FROM member m WHERE m.classid NOT IN ('pg_proc'::regclass, 'pg_namespace'::regclass, 'pg_class'::regclass)
    )
    SELECT concat_ws(' | ', object, definition, owner::regrole,
        (SELECT string_agg(one::text, ', ' ORDER BY one::text) FROM unnest(acl) AS one),
        (SELECT string_agg(one::text, ', ' ORDER BY one::text) FROM pg_init_privs i, unnest(i.initprivs) AS one
         WHERE i.classoid = classid AND i.objoid = objid AND i.objsubid = 0),
        obj_description(objid, classid::regclass::name))
    FROM described
    UNION ALL
    SELECT 'dumped: ' || pg_describe_object('pg_class'::regclass, config.oid, 0) || ' | ' || config.condition
    FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS config (oid, condition)
    WHERE e.extname = 'pg_mask'
    ORDER BY 1";

/// The extension's objects in a database.
pub(crate) async fn objects(client: &Client) -> Vec<String> {
    let objects = texts(client, OBJECTS).await;
    assert!(objects.len() > 100, "{} objects", objects.len());
    objects
}

/// What only one of two installations has, or has in another way.
pub(crate) fn difference(one: &[String], other: &[String]) -> Vec<String> {
    let missing = |from: &[String], of: &[String], sign| -> Vec<String> {
        let lacks = |object: &&String| !from.contains(*object);
        of.iter().filter(lacks).map(|object| format!("{sign} {object}")).collect()
    };
    [missing(other, one, "-"), missing(one, other, "+")].concat()
}
