-- Optional: stored results of the views in the schema logins, for dashboards that have to be quick. What is read in
-- logins.dashboard_* is as old as logins.dashboard_refresh says: somebody has to call logins.refresh_dashboards(), from
-- cron or pg_cron, as a superuser or a member of pgmask_operator. Apply this file after 03, and after 04 if that is
-- applied; applying it again fills them anew.
--
-- A materialized view is filled with the rights of its owner, and shows the same to all of its readers. The owner is
-- pgmask_refresher, which no role may be a member of and which has the rights of pgmask_analyst. So a refresh, which
-- runs code of the login table's owner, has no right worth taking, whoever calls it. Where user_logins has row level
-- security, dashboards are empty until a policy is made for pgmask_refresher, and then every analyst sees its rows here.
BEGIN ISOLATION LEVEL READ COMMITTED;
-- The owner of the database may have sessions begin as another role (ALTER DATABASE … SET role).
SET LOCAL SESSION AUTHORIZATION DEFAULT;
SET LOCAL ROLE NONE;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL standard_conforming_strings = on;
SET LOCAL statement_timeout = 0;
-- A client may go on after an error, and some commit what is left then: so the commit fails until the last statement has
-- looked at all of it.
CREATE TEMPORARY TABLE refused (file text CONSTRAINT what_an_error_above_says UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP;
INSERT INTO pg_temp.refused VALUES ('05_dashboards'), ('05_dashboards');

-- Functions are called below, so all of it has to be a superuser's: the owner of the schema could exchange them.
CREATE FUNCTION pg_temp.refuse_what_others_made() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    taken pg_catalog.record;
BEGIN
    IF pg_catalog.to_regclass('logins.shared_ips') IS NULL OR pg_catalog.to_regrole('pgmask_refresher') IS NULL THEN
        RAISE EXCEPTION 'this database has no view logins.shared_ips, or this server no role pgmask_refresher'
            USING HINT = 'Apply sql/00_roles.sql to sql/03_analyst_views.sql first.';
    END IF;
    -- A schema of that name may be anybody's where the extension is not there.
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_extension AS e
        JOIN pg_catalog.pg_roles AS r ON r.oid = e.extowner
        JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
        WHERE e.extname = 'pg_mask' AND r.rolsuper AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
          AND d.objid = pg_catalog.to_regnamespace('pgmask')
    ) THEN
        RAISE EXCEPTION 'this database has no extension pg_mask of a superuser''s'
            USING HINT = 'Apply sql/01_user_logins.sql first.';
    END IF;
    SELECT there.name, there.owner::pg_catalog.regrole AS owner INTO taken
    FROM (
        SELECT 'schema ' || n.nspname AS name, n.nspowner AS owner FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'logins'
        UNION ALL
        SELECT 'logins.' || c.relname, c.relowner FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = 'logins'::pg_catalog.regnamespace AND c.relkind <> 'i'
        UNION ALL
        SELECT 'logins.' || p.proname || '()', p.proowner FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'logins'::pg_catalog.regnamespace AND p.proname = 'refresh_dashboards'
    ) AS there
    JOIN pg_catalog.pg_roles AS r ON r.oid = there.owner
    WHERE NOT r.rolsuper AND r.rolname <> current_user AND r.rolname <> 'pgmask_refresher'
    ORDER BY there.name DESC LIMIT 1; -- the schema first
    IF FOUND THEN
        RAISE EXCEPTION '% is there already and belongs to %', taken.name, taken.owner
            USING HINT = 'Drop it, or give it another name, and apply this file again.';
    END IF;
END
$$;
DO $$ BEGIN PERFORM pg_temp.refuse_what_others_made(); END $$;

-- A stored result for each view that has few columns and no user, and a view over it: a token that was stored before a
-- rotation is lifted as it is read. The unique index is what REFRESH … CONCURRENTLY needs, and the other what "the most
-- shared ones" reads. The condition, which is always true, is computed before anything of the table is looked at: it has
-- the library loaded, which refuses commands of the table's code that would leave something behind for readers. And what
-- is stored is of PostgreSQL's own types: functions of others are run by ANALYZE, without that condition.
DO $$
DECLARE
    made pg_catalog.record;
    columns pg_catalog.text;
BEGIN
    FOR made IN
        SELECT * FROM (VALUES
            ('shared_ips', 'masked_ip', 'pii', 'masked_ip', 'users DESC, logins DESC'),
            ('shared_devices', 'masked_device_id', 'pii', 'masked_device_id', 'users DESC, logins DESC'),
            ('shared_networks', 'masked_ip_network', 'network', 'masked_ip_network', 'users DESC, logins DESC'),
            ('logins_by_day', NULL, NULL, 'day, device_type, locale, app_version', NULL),
            ('version_adoption', NULL, NULL, 'day, app_version', NULL),
            ('new_devices_by_day', NULL, NULL, 'day', NULL)
        ) AS v(name, token, domain, key, top)
        WHERE pg_catalog.to_regclass('logins.' || v.name) IS NOT NULL
    LOOP
        IF pg_catalog.to_regclass('logins.stored_' || made.name) IS NOT NULL THEN
            -- A restore without owners gives it to whoever restores.
            EXECUTE pg_catalog.format('ALTER MATERIALIZED VIEW logins.stored_%s OWNER TO pgmask_refresher', made.name);
            -- And one without rights gives nobody any.
            EXECUTE pg_catalog.format('GRANT SELECT ON logins.stored_%1$s, logins.dashboard_%1$s TO pgmask_analyst', made.name);
            CONTINUE;
        END IF;
        SELECT pg_catalog.string_agg(pg_catalog.format(CASE WHEN a.atttypid < 16384 THEN '%I' ELSE '%I::text' END, a.attname), ', ' ORDER BY a.attnum)
        INTO columns
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = ('logins.' || made.name)::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped;
        EXECUTE pg_catalog.format('CREATE MATERIALIZED VIEW logins.stored_%1$s AS SELECT %2$s FROM logins.%1$s
            WHERE pgmask.app_version_text(0) IS NOT NULL WITH NO DATA', made.name, columns);
        EXECUTE pg_catalog.format('CREATE UNIQUE INDEX stored_%1$s_key ON logins.stored_%1$s (%2$s)', made.name, made.key);
        IF made.top IS NOT NULL THEN
            EXECUTE pg_catalog.format('CREATE INDEX stored_%1$s_top ON logins.stored_%1$s (%2$s)', made.name, made.top);
        END IF;
        EXECUTE pg_catalog.format('ALTER MATERIALIZED VIEW logins.stored_%s OWNER TO pgmask_refresher', made.name);
        SELECT pg_catalog.string_agg(CASE a.attname WHEN made.token
                THEN pg_catalog.format('pgmask.current_mask(%1$I, %2$L) AS %1$I', a.attname, made.domain)
                ELSE pg_catalog.quote_ident(a.attname) END, ', ' ORDER BY a.attnum)
        INTO columns
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = ('logins.' || made.name)::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped;
        EXECUTE pg_catalog.format('CREATE OR REPLACE VIEW logins.dashboard_%1$s WITH (security_invoker = true) AS
            SELECT %2$s FROM logins.stored_%1$s', made.name, columns);
        EXECUTE pg_catalog.format('GRANT SELECT ON logins.stored_%1$s, logins.dashboard_%1$s TO pgmask_analyst', made.name);
        EXECUTE pg_catalog.format('COMMENT ON VIEW logins.dashboard_%1$s IS %2$L', made.name,
            'logins.' || made.name || ' as it was at dashboard_refresh.refreshed_at');
        EXECUTE pg_catalog.format('COMMENT ON MATERIALIZED VIEW logins.stored_%1$s IS %2$L', made.name,
            'what logins.dashboard_' || made.name || ' reads');
        -- A column has the meaning that it has in the view.
        FOR columns IN
            SELECT pg_catalog.format('COMMENT ON COLUMN logins.%s_%s.%I IS %L', kind, made.name, a.attname,
                pg_catalog.col_description(a.attrelid, a.attnum))
            FROM pg_catalog.pg_attribute AS a, pg_catalog.unnest(ARRAY['stored', 'dashboard']) AS kind
            WHERE a.attrelid = ('logins.' || made.name)::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped
        LOOP
            EXECUTE columns;
        END LOOP;
    END LOOP;
END
$$;

-- When they were filled last: what they show is no older than that. It is stored in the same way, and not in a table: that
-- would be written by a superuser, with triggers of whoever got the right to make them.
DO $$
BEGIN
    IF pg_catalog.to_regclass('logins.stored_when') IS NULL THEN
        CREATE MATERIALIZED VIEW logins.stored_when AS
            SELECT pg_catalog.now() AS refreshed_at, pg_catalog.clock_timestamp() - pg_catalog.statement_timestamp() AS took WITH NO DATA;
        CREATE UNIQUE INDEX stored_when_key ON logins.stored_when (refreshed_at);
    END IF;
    ALTER MATERIALIZED VIEW logins.stored_when OWNER TO pgmask_refresher;
END
$$;
CREATE OR REPLACE VIEW logins.dashboard_refresh WITH (security_invoker = true) AS
    SELECT refreshed_at, took FROM logins.stored_when;

-- It goes with the extension: whoever may make a schema could give another meaning to what a function that stays calls.
CREATE OR REPLACE FUNCTION logins.refresh_dashboards() RETURNS interval
    LANGUAGE sql VOLATILE SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS 'SELECT pgmask.refresh_dashboards()';
ALTER FUNCTION logins.refresh_dashboards() DEPENDS ON EXTENSION pg_mask;
REVOKE ALL ON FUNCTION logins.refresh_dashboards() FROM PUBLIC;

COMMENT ON VIEW logins.dashboard_refresh IS 'when the stored results of logins.dashboard_* were read from user_logins';
COMMENT ON COLUMN logins.dashboard_refresh.refreshed_at IS 'they hold what was committed by then, and perhaps some that was committed while they were filled';
COMMENT ON COLUMN logins.dashboard_refresh.took IS 'how long that took';
COMMENT ON MATERIALIZED VIEW logins.stored_when IS 'what logins.dashboard_refresh reads';
COMMENT ON FUNCTION logins.refresh_dashboards() IS 'fills what logins.dashboard_* reads anew, without a lock that readers wait for; returns how long it took';

-- What was made while this file was applied would have been taken for its own.
DO $$
BEGIN
    PERFORM pg_temp.refuse_what_others_made();
    GRANT USAGE ON SCHEMA logins TO pgmask_operator, pgmask_refresher;
    GRANT EXECUTE ON FUNCTION logins.refresh_dashboards(), pgmask.refresh_dashboards() TO pgmask_operator;
    GRANT SELECT ON logins.stored_when, logins.dashboard_refresh TO pgmask_analyst;
    PERFORM logins.refresh_dashboards();
    DELETE FROM pg_temp.refused;
END
$$;
DROP FUNCTION pg_temp.refuse_what_others_made();

COMMIT;
