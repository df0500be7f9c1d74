-- What a role may do beside what pgmask_ingester may: a row for each attribute, membership, function and table. The
-- session's roles count, and each that they are members of: what they don't inherit they may become. A superuser among
-- them says it all. Of the roles that initdb makes, those are left out that only look at the server's state, or reserve
-- a connection.
WITH RECURSIVE reached(oid) AS (
    SELECT oid FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) ANY (ARRAY[session_user, current_user])
    UNION
    SELECT m.roleid FROM reached JOIN pg_catalog.pg_auth_members AS m ON m.member OPERATOR(pg_catalog.=) reached.oid
), roles AS (
    SELECT r.*, r.rolname OPERATOR(pg_catalog.=) ANY (ARRAY[session_user, current_user]) AS own
    FROM reached JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) reached.oid
), of_pg_mask AS (
    SELECT d.classid, d.objid
    FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
        AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
    WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mask' AND d.deptype OPERATOR(pg_catalog.=) 'e'
)
SELECT 'attribute', CASE WHEN r.own THEN a.name ELSE pg_catalog.concat(a.name, ' as ', r.rolname) END
FROM roles AS r CROSS JOIN LATERAL (VALUES ('CREATEROLE', r.rolcreaterole), ('CREATEDB', r.rolcreatedb),
    ('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls)) AS a(name, has)
WHERE a.has AND NOT EXISTS (SELECT FROM roles WHERE rolsuper)
UNION ALL
SELECT 'membership', pg_catalog.concat(r.rolname, CASE WHEN r.rolsuper THEN ', a superuser' END)
FROM roles AS r
WHERE NOT r.own AND (r.rolsuper
    OR (r.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid
        AND r.rolname OPERATOR(pg_catalog.<>) ALL ('{pg_monitor,pg_read_all_settings,pg_read_all_stats,pg_stat_scan_tables,pg_use_reserved_connections,pg_database_owner}'))
    OR (r.rolname OPERATOR(pg_catalog.~~) 'pgmask\_%' AND r.rolname OPERATOR(pg_catalog.<>) ALL ('{pgmask_ingester,pgmask_forwarder}')))
UNION ALL
SELECT 'function', p.oid::pg_catalog.regprocedure::pg_catalog.text
FROM of_pg_mask JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) of_pg_mask.objid
    AND p.tableoid OPERATOR(pg_catalog.=) of_pg_mask.classid
WHERE NOT pg_catalog.has_function_privilege(pg_catalog.to_regrole('pgmask_ingester'), p.oid, 'EXECUTE')
    AND NOT EXISTS (SELECT FROM roles WHERE rolsuper)
    AND EXISTS (SELECT FROM roles AS r WHERE pg_catalog.has_function_privilege(r.oid, p.oid, 'EXECUTE'))
UNION ALL
SELECT 'table', c.oid::pg_catalog.regclass::pg_catalog.text
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}') AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema'
    AND (n.nspname OPERATOR(pg_catalog.=) 'pgmask' OR n.nspname OPERATOR(pg_catalog.!~~) 'pg\_%')
    AND NOT EXISTS (SELECT FROM roles WHERE rolsuper)
    AND EXISTS (SELECT FROM roles AS r
        WHERE pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE')
            AND (pg_catalog.has_table_privilege(r.oid, c.oid, 'DELETE, TRUNCATE')
                OR pg_catalog.has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE')))
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
        JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
            AND e.extname OPERATOR(pg_catalog.<>) 'pg_mask'
        WHERE (d.classid, d.objid, d.deptype) OPERATOR(pg_catalog.=) (c.tableoid, c.oid, 'e'))
ORDER BY 1, 2
