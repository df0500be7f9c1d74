-- The last column is the owner of the extension, unless that is a superuser.
SELECT pg_catalog.current_setting('server_version'),
    (SELECT extversion FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_mask'),
    current_user::pg_catalog.text,
    (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user),
    (SELECT owner.rolname::pg_catalog.text
        FROM pg_catalog.pg_extension AS e, pg_catalog.pg_roles AS owner
        WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mask' AND owner.oid OPERATOR(pg_catalog.=) e.extowner AND NOT owner.rolsuper)
