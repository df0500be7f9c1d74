-- What analysts ask most, as views in the schema logins. They are right in the midst of a rotation, too: tokens are
-- lifted to the generation in use before they are compared. A view shows what its reader may see of user_logins, so
-- row level security holds. Apply this file after 02. Applied again, it gives back what was
-- taken of the rights to the views, and changes nothing else.
--
-- A column has one meaning in all of them: what is a column of user_logins keeps its name (create_date is "day"),
-- counts are plural nouns, and first_seen and last_seen are days. 04_networks.sql adds shared_networks.
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
INSERT INTO pg_temp.refused VALUES ('03_analyst_views'), ('03_analyst_views');

-- What default privileges would give others in it is taken back: it is for what superusers call.
DO $$
DECLARE
    other pg_catalog.text;
BEGIN
    IF pg_catalog.to_regnamespace('logins') IS NULL THEN
        CREATE SCHEMA logins;
        FOR other IN
            SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
            FROM pg_catalog.pg_namespace AS n, pg_catalog.aclexplode(n.nspacl) AS a
            WHERE n.nspname = 'logins' AND a.grantee <> n.nspowner
        LOOP
            EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA logins FROM %s', other);
        END LOOP;
    END IF;
END
$$;

-- A schema or a view that another role made under one of these names would stay that role's to change.
CREATE FUNCTION pg_temp.refuse_what_others_made() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    taken pg_catalog.record;
BEGIN
    IF pg_catalog.to_regclass('public.user_logins') IS NULL OR pg_catalog.to_regprocedure('pgmask.current_mask(text,text)') IS NULL THEN
        RAISE EXCEPTION 'this database has no table public.user_logins, or no extension pg_mask'
            USING HINT = 'Apply sql/01_user_logins.sql and sql/02_rights.sql first.';
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
        WHERE c.relnamespace = pg_catalog.to_regnamespace('logins')
          AND c.relname IN ('shared_ips', 'shared_devices', 'users_with_many_ips', 'users_with_many_devices',
              'logins_by_day', 'version_adoption', 'duplicate_events', 'new_devices_by_day')
        UNION ALL
        SELECT 'public.user_logins', c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass('public.user_logins')
    ) AS there
    JOIN pg_catalog.pg_roles AS r ON r.oid = there.owner
    WHERE NOT r.rolsuper AND r.rolname <> current_user
      AND (there.name <> 'public.user_logins'
           OR there.owner <> (SELECT d.datdba FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()))
    ORDER BY there.name DESC LIMIT 1; -- the schema first
    IF FOUND THEN
        RAISE EXCEPTION '% is there already and belongs to %', taken.name, taken.owner
            USING HINT = 'Drop it, or give it another name, and apply this file again.';
    END IF;
END
$$;
DO $$ BEGIN PERFORM pg_temp.refuse_what_others_made(); END $$;

-- Pairs of a stored token and a user are grouped first: in parallel, without sorting the rows, and in the order of an
-- index where 01_user_logins.sql made one. What is left, pairs, is lifted then, and its users are counted. ORDER BY asks
-- for the order of the index: PostgreSQL then merges the groups of its parallel workers where it would hash them once
-- more, and has next to nothing to sort after the lifting, which changes no token of the generation in use. This saves
-- a third of the time with the index, and costs a tenth without it.
CREATE OR REPLACE VIEW logins.shared_ips WITH (security_invoker = true) AS
    SELECT pgmask.current_mask(masked_ip) AS masked_ip, count(DISTINCT user_id) AS users, sum(logins)::bigint AS logins,
           min(first_seen) AS first_seen, max(last_seen) AS last_seen
    FROM (
        SELECT masked_ip, user_id, count(*) AS logins,
               min(create_date)::date AS first_seen, max(create_date)::date AS last_seen
        FROM public.user_logins
        WHERE masked_ip IS NOT NULL
        GROUP BY masked_ip, user_id
        ORDER BY masked_ip, user_id
    ) AS pairs
    GROUP BY 1
    HAVING count(DISTINCT user_id) > 1;

CREATE OR REPLACE VIEW logins.shared_devices WITH (security_invoker = true) AS
    SELECT pgmask.current_mask(masked_device_id) AS masked_device_id, count(DISTINCT user_id) AS users, sum(logins)::bigint AS logins,
           min(first_seen) AS first_seen, max(last_seen) AS last_seen
    FROM (
        SELECT masked_device_id, user_id, count(*) AS logins,
               min(create_date)::date AS first_seen, max(create_date)::date AS last_seen
        FROM public.user_logins
        WHERE masked_device_id IS NOT NULL
        GROUP BY masked_device_id, user_id
        ORDER BY masked_device_id, user_id
    ) AS pairs
    GROUP BY 1
    HAVING count(DISTINCT user_id) > 1;

CREATE OR REPLACE VIEW logins.users_with_many_ips WITH (security_invoker = true) AS
    SELECT user_id, count(DISTINCT pgmask.current_mask(masked_ip)) AS ips, sum(logins)::bigint AS logins,
           min(first_seen) AS first_seen, max(last_seen) AS last_seen
    FROM (
        SELECT user_id, masked_ip, count(*) AS logins,
               min(create_date)::date AS first_seen, max(create_date)::date AS last_seen
        FROM public.user_logins
        WHERE masked_ip IS NOT NULL AND user_id IS NOT NULL
        GROUP BY masked_ip, user_id
    ) AS pairs
    GROUP BY user_id
    HAVING count(DISTINCT pgmask.current_mask(masked_ip)) > 1;

CREATE OR REPLACE VIEW logins.users_with_many_devices WITH (security_invoker = true) AS
    SELECT user_id, count(DISTINCT pgmask.current_mask(masked_device_id)) AS devices, sum(logins)::bigint AS logins,
           min(first_seen) AS first_seen, max(last_seen) AS last_seen
    FROM (
        SELECT user_id, masked_device_id, count(*) AS logins,
               min(create_date)::date AS first_seen, max(create_date)::date AS last_seen
        FROM public.user_logins
        WHERE masked_device_id IS NOT NULL AND user_id IS NOT NULL
        GROUP BY masked_device_id, user_id
    ) AS pairs
    GROUP BY user_id
    HAVING count(DISTINCT pgmask.current_mask(masked_device_id)) > 1;

CREATE OR REPLACE VIEW logins.new_devices_by_day WITH (security_invoker = true) AS
    SELECT day, count(*) AS new_devices
    FROM (
        SELECT min(day) AS day
        FROM (
            SELECT masked_device_id, min(create_date)::date AS day
            FROM public.user_logins
            WHERE masked_device_id IS NOT NULL
            GROUP BY masked_device_id
        ) AS stored
        GROUP BY pgmask.current_mask(masked_device_id)
    ) AS devices
    GROUP BY day;

-- A table that keeps versions as text keeps what the sender wrote: there is nothing to turn back.
DO $$
DECLARE
    readable pg_catalog.text := (SELECT CASE t.typcategory WHEN 'N' THEN 'pgmask.app_version_text(app_version::integer)' ELSE 'app_version::text' END
        FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid = 'public.user_logins'::pg_catalog.regclass AND a.attname = 'app_version');
BEGIN
    EXECUTE pg_catalog.format($view$
        CREATE OR REPLACE VIEW logins.logins_by_day WITH (security_invoker = true) AS
            SELECT create_date::date AS day, device_type, locale, app_version, %s AS version, count(*) AS logins
            FROM public.user_logins
            GROUP BY create_date::date, device_type, locale, app_version
        $view$, readable);
    EXECUTE pg_catalog.format($view$
        CREATE OR REPLACE VIEW logins.version_adoption WITH (security_invoker = true) AS
            SELECT day, app_version, %s AS version, count(user_id) AS users, sum(logins)::bigint AS logins,
                   round(sum(logins) / sum(sum(logins)) OVER (PARTITION BY day), 4) AS share
            FROM (
                SELECT create_date::date AS day, app_version, user_id, count(*) AS logins
                FROM public.user_logins
                GROUP BY create_date::date, app_version, user_id
            ) AS users
            GROUP BY day, app_version
        $view$, readable);
    EXECUTE pg_catalog.format($view$
        CREATE OR REPLACE VIEW logins.duplicate_events WITH (security_invoker = true) AS
            SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, %s AS version, day, logins
            FROM (
                SELECT user_id, device_type, pgmask.current_mask(masked_ip) AS masked_ip,
                       pgmask.current_mask(masked_device_id) AS masked_device_id, locale, app_version,
                       create_date::date AS day, count(*) AS logins
                FROM public.user_logins
                GROUP BY 1, 2, 3, 4, 5, 6, 7
                HAVING count(*) > 1
            ) AS events
        $view$, readable);
END
$$;

COMMENT ON SCHEMA logins IS 'pg_mask: views of public.user_logins for analysts';
COMMENT ON VIEW logins.shared_ips IS 'addresses that more than one user logged in from';
COMMENT ON VIEW logins.shared_devices IS 'devices that more than one user logged in on: they changed hands';
COMMENT ON VIEW logins.users_with_many_ips IS 'users who logged in from more than one address';
COMMENT ON VIEW logins.users_with_many_devices IS 'users who logged in on more than one device';
COMMENT ON VIEW logins.logins_by_day IS 'logins of each day by device type, locale and version';
COMMENT ON VIEW logins.version_adoption IS 'users and logins of each version on each day';
COMMENT ON VIEW logins.duplicate_events IS
    'logins that agree in all that is kept of them, the day included: sent twice by a client, or made twice in a day';
COMMENT ON VIEW logins.new_devices_by_day IS 'devices that were seen for the first time, by day';

-- A column has one meaning wherever it is.
DO $$
DECLARE
    described pg_catalog.record;
BEGIN
    FOR described IN
        SELECT a.attrelid::pg_catalog.regclass AS view, a.attname AS name, m.meaning
        FROM (VALUES
            ('user_id', 'the user'),
            ('device_type', 'kind of device, as the sender names it'),
            ('masked_ip', 'token of the address, of the generation in use'),
            ('masked_device_id', 'token of the device, of the generation in use'),
            ('locale', 'locale, as the sender names it'),
            ('app_version', 'version as user_logins has it: as an integer it sorts as versions do'),
            ('version', 'version to be read'),
            ('day', 'UTC date the message was sent'),
            ('users', 'distinct users'),
            ('ips', 'distinct addresses'),
            ('devices', 'distinct devices'),
            ('new_devices', 'devices that no day before has'),
            ('logins', 'rows of user_logins'),
            ('share', 'part of the day''s logins, 0 to 1'),
            ('first_seen', 'first day with such a login'),
            ('last_seen', 'last day with such a login')
        ) AS m(name, meaning)
        JOIN pg_catalog.pg_attribute AS a ON a.attname = m.name
        JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid AND c.relnamespace = 'logins'::pg_catalog.regnamespace
        WHERE c.relname IN ('shared_ips', 'shared_devices', 'users_with_many_ips', 'users_with_many_devices',
            'logins_by_day', 'version_adoption', 'duplicate_events', 'new_devices_by_day')
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', described.view, described.name, described.meaning);
    END LOOP;
END
$$;

-- What was made while this file was applied would have been taken for its own.
DO $$
BEGIN
    PERFORM pg_temp.refuse_what_others_made();
    GRANT USAGE ON SCHEMA logins TO pgmask_analyst;
    GRANT SELECT ON logins.shared_ips, logins.shared_devices, logins.users_with_many_ips, logins.users_with_many_devices,
        logins.logins_by_day, logins.version_adoption, logins.duplicate_events, logins.new_devices_by_day
        TO pgmask_analyst;
    DELETE FROM pg_temp.refused;
END
$$;
DROP FUNCTION pg_temp.refuse_what_others_made();

COMMIT;
