-- Who may do what. Roles belong to the whole server, rights to each database: apply it to each
-- database that takes in logins, as a superuser, after 01; applying it again changes nothing.
--
--   pgmask_ingester   may call the two ingest functions, and nothing else: no table
--   pgmask_analyst    may mask values, and read user_logins and the views of 03_analyst_views.sql
--   pgmask_recoverer  may open quarantined messages, each for a reason that is kept
--   pgmask_forwarder  logs in as the forwarder: an ingester whose parameters are never logged
--
-- (PostgreSQL reserves role names that start with "pg_".)
-- pgmask_forwarder comes without a password: give it one (\password pgmask_forwarder), or another way
-- in (pg_hba.conf).
SET search_path = pg_catalog, pg_temp;

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['pgmask_ingester', 'pgmask_analyst', 'pgmask_recoverer'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pgmask_forwarder') THEN
        CREATE ROLE pgmask_forwarder LOGIN;
    END IF;
END
$$;
GRANT pgmask_ingester TO pgmask_forwarder;

COMMENT ON ROLE pgmask_ingester IS 'pg_mask: may call the two ingest functions, and nothing else';
COMMENT ON ROLE pgmask_analyst IS 'pg_mask: may mask values and read masked logins';
COMMENT ON ROLE pgmask_recoverer IS 'pg_mask: may open quarantined messages, each for a reason that is kept';
COMMENT ON ROLE pgmask_forwarder IS 'pg_mask: logs in as the forwarder';

-- A statement that fails or takes long may be logged: the messages that it carries may not. Settings
-- of a group don't reach its members, so they stand at the role that logs in. Any other login role
-- that ingests needs the same.
ALTER ROLE pgmask_forwarder SET log_parameter_max_length = 0;
ALTER ROLE pgmask_forwarder SET log_parameter_max_length_on_error = 0;
-- A jsonb that can't be read is shown in the CONTEXT of the error; terse leaves that out of the log.
ALTER ROLE pgmask_forwarder SET log_error_verbosity = terse;
-- Plans with the messages' text in them could be shown by auto_explain.
ALTER ROLE pgmask_forwarder SET plan_cache_mode = force_generic_plan;
DO $$
BEGIN
    IF pg_catalog.current_setting('server_version_num')::int >= 160000 THEN
        ALTER ROLE pgmask_forwarder SET auto_explain.log_parameter_max_length = 0;
    END IF;
END
$$;

-- Rights to the functions; their bare names are in the schema that CREATE EXTENSION was given.
GRANT USAGE ON SCHEMA pgmask TO pgmask_ingester, pgmask_analyst, pgmask_recoverer;
GRANT EXECUTE ON FUNCTION
    pgmask.ingest_login(jsonb, date),
    pgmask.ingest_login_batch(text[], text[], timestamptz[], integer[])
    TO pgmask_ingester;
GRANT EXECUTE ON FUNCTION
    pgmask.mask_pii(text), pgmask.mask_pii(text, text), pgmask.mask_pii(inet), pgmask.app_version_text(integer)
    TO pgmask_analyst;
DO $$
DECLARE
    home name;
BEGIN
    SELECT n.nspname INTO home
    FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_mask';
    IF home IS NULL THEN
        RAISE EXCEPTION 'this database has no extension pg_mask'
            USING HINT = 'Apply sql/01_user_logins.sql first.';
    END IF;
    EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO pgmask_ingester, pgmask_analyst', home);
    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION
        %1$I.ingest_login(jsonb, date)
        TO pgmask_ingester', home);
    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION
        %1$I.mask_pii(text), %1$I.mask_pii(text, text), %1$I.mask_pii(inet),
        %1$I.app_version_text(integer)
        TO pgmask_analyst', home);
END
$$;
GRANT EXECUTE ON FUNCTION pgmask.unseal_quarantine(bigint, text) TO pgmask_recoverer;
GRANT SELECT ON public.user_logins TO pgmask_analyst;

RESET search_path;
