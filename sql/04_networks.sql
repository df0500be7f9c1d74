-- Optional: a column for the token of an address's network (/24 of IPv4, /48 of IPv6), and the view of shared ones.
-- Ingestion fills the column from the next batch on; in rows that are there already it stays NULL, since a token does
-- not tell the network. docs/security.md says what the column reveals. Apply this file after 03; applied again, it gives
-- back what was taken of its rights, and changes nothing else. Where the table is replicated, add the column at the subscribers first.
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
INSERT INTO pg_temp.refused VALUES ('04_networks'), ('04_networks');

CREATE FUNCTION pg_temp.refuse_what_others_made() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    taken pg_catalog.record;
BEGIN
    IF pg_catalog.to_regclass('public.user_logins') IS NULL OR pg_catalog.to_regnamespace('logins') IS NULL THEN
        RAISE EXCEPTION 'this database has no table public.user_logins, or no schema logins'
            USING HINT = 'Apply sql/01_user_logins.sql to sql/03_analyst_views.sql first.';
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
        SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid IN (pg_catalog.to_regclass('public.user_logins'), pg_catalog.to_regclass('logins.shared_networks'))
    ) AS there
    JOIN pg_catalog.pg_roles AS r ON r.oid = there.owner
    WHERE NOT r.rolsuper AND r.rolname <> current_user
      AND (there.name <> 'public.user_logins'
           OR there.owner <> (SELECT d.datdba FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()))
    ORDER BY there.name DESC LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% is there already and belongs to %', taken.name, taken.owner
            USING HINT = 'If it is the one that you want: apply ALTER TABLE public.user_logins ADD COLUMN masked_ip_network varchar(256) as its owner, and the rest of this file as the owner of the schema logins.';
    END IF;
END
$$;
DO $$ BEGIN PERFORM pg_temp.refuse_what_others_made(); END $$;

-- The table is locked for a moment. Where a query runs for long, this would wait for it, and ingestion would wait for
-- this: so it gives up after five seconds, and the file is applied again later.
SET LOCAL lock_timeout = '5s';
ALTER TABLE public.user_logins ADD COLUMN IF NOT EXISTS masked_ip_network varchar(256);

-- Optional, as in 01: with this index the view reads pairs of network and user in order.
--
--     CREATE INDEX CONCURRENTLY user_logins_masked_ip_network
--         ON public.user_logins (masked_ip_network, user_id) INCLUDE (create_date);

DO $$
DECLARE
    kind pg_catalog.text := (SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = 'public.user_logins'::pg_catalog.regclass AND a.attname = 'masked_ip_network' AND NOT a.attisdropped);
BEGIN
    IF kind <> 'text' AND kind <> 'character varying'
        AND coalesce(pg_catalog.substring(kind, '^character varying\((\d+)\)$')::integer, 0) < 67
    THEN
        RAISE EXCEPTION 'column masked_ip_network of public.user_logins is a %, which does not hold tokens', kind
            USING HINT = 'As the owner of public.user_logins: ALTER TABLE public.user_logins ALTER masked_ip_network TYPE varchar(256). Then apply this file again.';
    END IF;
END
$$;

CREATE OR REPLACE VIEW logins.shared_networks WITH (security_invoker = true) AS
    SELECT pgmask.current_mask(masked_ip_network, 'network') AS masked_ip_network, count(DISTINCT user_id) AS users, sum(logins)::bigint AS logins,
           min(first_seen) AS first_seen, max(last_seen) AS last_seen
    FROM (
        SELECT masked_ip_network, user_id, count(*) AS logins,
               min(create_date)::date AS first_seen, max(create_date)::date AS last_seen
        FROM public.user_logins
        WHERE masked_ip_network IS NOT NULL
        GROUP BY masked_ip_network, user_id
        ORDER BY masked_ip_network, user_id -- as in 03
    ) AS pairs
    GROUP BY 1
    HAVING count(DISTINCT user_id) > 1;

COMMENT ON COLUMN public.user_logins.masked_ip_network IS
    'token of the address''s network, as mask_network() gives it: NULL where there is no address, and in rows from before the column';
COMMENT ON VIEW logins.shared_networks IS 'networks that more than one user logged in from';
COMMENT ON COLUMN logins.shared_networks.masked_ip_network IS 'token of the network, of the generation in use';
COMMENT ON COLUMN logins.shared_networks.users IS 'distinct users';
COMMENT ON COLUMN logins.shared_networks.logins IS 'rows of user_logins';
COMMENT ON COLUMN logins.shared_networks.first_seen IS 'first day with such a login';
COMMENT ON COLUMN logins.shared_networks.last_seen IS 'last day with such a login';

-- What was made while this file was applied would have been taken for its own.
DO $$
BEGIN
    PERFORM pg_temp.refuse_what_others_made();
    GRANT SELECT ON logins.shared_networks TO pgmask_analyst;
    DELETE FROM pg_temp.refused;
END
$$;
DROP FUNCTION pg_temp.refuse_what_others_made();

COMMIT;
