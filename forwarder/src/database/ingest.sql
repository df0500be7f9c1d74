SELECT taken.inserted, taken.duplicate, taken.quarantined, pgmask.last_quarantined(),
    pg_catalog.set_config('synchronous_commit', 'on', true)
FROM (SELECT d.deptype OPERATOR(pg_catalog.=) 'e'
            -- Else the catalogs are read as they were, and the function is called as it is now.
            AND pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.=) 'read committed' AS so
    FROM pg_catalog.pg_namespace AS n, pg_catalog.pg_extension AS e, pg_catalog.pg_depend AS d
    WHERE n.nspname OPERATOR(pg_catalog.=) 'pgmask' AND e.extname OPERATOR(pg_catalog.=) 'pg_mask'
        AND (d.classid, d.objid, d.refclassid, d.refobjid)
            OPERATOR(pg_catalog.=) (n.tableoid, n.oid, e.tableoid, e.oid) OFFSET 0) AS ours
CROSS JOIN LATERAL pgmask.FUNCTION($1, CASE WHEN ours.so THEN $2 END, $3, $4) AS taken
