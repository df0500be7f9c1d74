-- The last columns are the owner of the extension and that of the schema that CREATE EXTENSION was given, unless that is a superuser.
SELECT pg_catalog.current_setting('server_version'),
    (SELECT extversion FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_mask'),
    current_user::pg_catalog.text,
    (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user),
    (SELECT owner.rolname::pg_catalog.text
        FROM pg_catalog.pg_extension AS e, pg_catalog.pg_roles AS owner
        WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mask' AND owner.oid OPERATOR(pg_catalog.=) e.extowner AND NOT owner.rolsuper),
    (SELECT owner.rolname::pg_catalog.text
        FROM pg_catalog.pg_extension AS e, pg_catalog.pg_namespace AS n, pg_catalog.pg_database AS d, pg_catalog.pg_roles AS owner
        WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mask' AND n.oid OPERATOR(pg_catalog.=) e.extnamespace
            AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
            AND owner.oid OPERATOR(pg_catalog.=) CASE
                WHEN n.nspowner OPERATOR(pg_catalog.=) 'pg_database_owner'::pg_catalog.regrole THEN d.datdba ELSE n.nspowner END
            AND NOT owner.rolsuper)
