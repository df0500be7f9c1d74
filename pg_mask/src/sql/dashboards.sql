-- What logins.refresh_dashboards() of sql/05_dashboards.sql does: all of them in one transaction. Who reads meanwhile sees what was stored before.
CREATE FUNCTION pgmask.refresh_dashboards() RETURNS interval
    LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'refresh_dashboards_wrapper';

-- The same, once the extension is held (held.rs).
CREATE FUNCTION pgmask.refresh_all_stored() RETURNS interval
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stored pg_catalog.record;
    thing pg_catalog.text;
BEGIN
    FOR stored IN
        SELECT c.oid, c.relispopulated, c.relname, c.relowner
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = 'logins'::pg_catalog.regnamespace AND c.relkind = 'm' AND c.relname LIKE 'stored\_%'
          AND (c.relowner = 'pgmask_refresher'::pg_catalog.regrole
               OR pg_catalog.to_regclass('logins.' || pg_catalog.replace(c.relname, 'stored_', 'dashboard_')) IS NOT NULL OR c.relname = 'stored_when')
        ORDER BY c.relname = 'stored_when', c.relname
    LOOP
        IF stored.relowner <> 'pgmask_refresher'::pg_catalog.regrole THEN
            RAISE EXCEPTION 'logins.% belongs to role %, not to pgmask_refresher', stored.relname, stored.relowner::pg_catalog.regrole
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Apply sql/05_dashboards.sql again.';
        END IF;
        -- Code of the login table reaches nothing of this session meanwhile, and leaves no cursor in it.
        PERFORM pgmask.refresh_stored(stored.oid, stored.relispopulated);
    END LOOP;
    -- Code that ran as that role, now or before, may have left something.
    SELECT pg_catalog.pg_describe_object(left_behind.classid, left_behind.objid, 0) INTO thing
    FROM (
        SELECT d.classid, d.objid FROM pg_catalog.pg_shdepend AS d
        WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = 'pgmask_refresher'::pg_catalog.regrole AND d.deptype = 'o'
          AND d.dbid = (SELECT b.oid FROM pg_catalog.pg_database AS b WHERE b.datname = pg_catalog.current_database())
          -- One that somebody made for it gives it nothing: PostgreSQL notes whom it is for as its owner.
          AND d.classid <> 'pg_catalog.pg_user_mapping'::pg_catalog.regclass
          AND NOT (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid IN (SELECT c.oid FROM pg_catalog.pg_class AS c
              WHERE c.relnamespace = 'logins'::pg_catalog.regnamespace AND c.relkind = 'm' AND c.relname LIKE 'stored\_%'))
        UNION ALL
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid
        FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
        WHERE c.relowner = 'pgmask_refresher'::pg_catalog.regrole AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
    ) AS left_behind LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'pgmask_refresher owns %, which sql/05_dashboards.sql did not make', thing
            USING HINT = 'Code of the login table may have made it, to be run by whoever reads a dashboard. Look at that code, and drop it.';
    END IF;
    RETURN pg_catalog.clock_timestamp() - pg_catalog.statement_timestamp();
END
$$;

COMMENT ON FUNCTION pgmask.refresh_dashboards() IS 'fills the stored results of sql/05_dashboards.sql anew; returns how long it took';
COMMENT ON FUNCTION pgmask.refresh_all_stored() IS 'what pgmask.refresh_dashboards() does';
