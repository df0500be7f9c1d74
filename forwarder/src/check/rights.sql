SELECT c.oid::pg_catalog.regclass::pg_catalog.text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}') AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema'
    AND (n.nspname OPERATOR(pg_catalog.=) 'pgmask' OR n.nspname OPERATOR(pg_catalog.!~~) 'pg\_%')
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    AND pg_catalog.has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
            AND e.extname OPERATOR(pg_catalog.<>) 'pg_mask'
        WHERE (d.classid, d.objid, d.deptype) OPERATOR(pg_catalog.=) (c.tableoid, c.oid, 'e'))
ORDER BY 1
