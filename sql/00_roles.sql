-- The roles. They belong to the whole server and need no extension, so apply this file before a restore,
-- too: a dump does not hold roles. Apply it as a superuser; applied again, it changes nothing but that pgmask_forwarder
-- may ingest.
--
--   pgmask_ingester   may call the two ingest functions and maintain(), and nothing else: no table
--   pgmask_analyst    may mask values, and read user_logins and the views of 03_analyst_views.sql
--   pgmask_unlimited  beside pgmask_analyst, for those whose job is masking in bulk
--   pgmask_operator   may do what keeps pg_mask in shape, and reads no value
--   pgmask_recoverer  may open quarantined messages and recover or forget values, each for a reason that is kept
--   pgmask_writer     inserts the rows, for ingestion; it is granted to no role
--   pgmask_nobody     runs code of other tables whose tokens are lifted; it has no right, and is granted to no role
--   pgmask_refresher  owns the stored results of 05_dashboards.sql, and is an analyst; it is granted to no role
--   pgmask_forwarder  logs in as the forwarder: an ingester whose parameters are never logged
--
-- What they may do in a database is in 02_rights.sql. (PostgreSQL reserves role names that start with "pg_".)
-- pgmask_forwarder comes without a password: give it one (\password pgmask_forwarder), or another way
-- in (pg_hba.conf).
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
INSERT INTO pg_temp.refused VALUES ('00_roles'), ('00_roles');

DO $$
DECLARE
    wanted pg_catalog.text;
    there pg_catalog.pg_roles;
    member_of pg_catalog.text;
    grantor pg_catalog.text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['pgmask_ingester', 'pgmask_analyst', 'pgmask_unlimited', 'pgmask_operator',
        'pgmask_recoverer', 'pgmask_writer', 'pgmask_nobody', 'pgmask_refresher', 'pgmask_forwarder']
    LOOP
        SELECT * INTO there FROM pg_catalog.pg_roles WHERE rolname = wanted;
        IF NOT FOUND THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I %s', wanted,
                CASE WHEN wanted = 'pgmask_forwarder' THEN 'LOGIN' ELSE 'NOLOGIN' END);
            -- The mark of a role that this file has made: only a superuser gives a role this setting, and has no reason to.
            -- It names the role, so it does not go with another name. (There is no function in C of that name.)
            EXECUTE pg_catalog.format('ALTER ROLE %I SET backtrace_functions = %L', wanted, wanted);
            CONTINUE;
        END IF;
        -- One that is there already may be somebody's who waits for its rights. (Citus reaches its workers
        -- as the role that a statement runs as, so there pgmask_writer may log in.)
        IF there.rolsuper OR there.rolcreaterole OR there.rolcreatedb OR there.rolreplication OR there.rolbypassrls THEN
            RAISE EXCEPTION 'role % is there already and has rights that it must not have', wanted
                USING HINT = 'Drop it, or take from it: SUPERUSER, CREATEROLE, CREATEDB, REPLICATION, BYPASSRLS.';
        END IF;
        IF there.rolcanlogin AND wanted <> 'pgmask_forwarder' AND NOT (wanted = 'pgmask_writer'
            AND pg_catalog.current_setting('shared_preload_libraries') LIKE '%citus%')
        THEN
            RAISE EXCEPTION 'role % is there already and can log in', wanted
                USING HINT = pg_catalog.format('Drop it, or ALTER ROLE %I NOLOGIN.', wanted);
        END IF;
        SELECT m.roleid::pg_catalog.regrole, m.grantor::pg_catalog.regrole INTO member_of, grantor
        FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid
        WHERE m.member = there.oid AND (wanted, r.rolname) NOT IN (('pgmask_forwarder', 'pgmask_ingester'), ('pgmask_refresher', 'pgmask_analyst'))
        ORDER BY 1 LIMIT 1;
        IF member_of IS NOT NULL THEN
            RAISE EXCEPTION 'role % is there already and a member of %', wanted, member_of
                USING HINT = pg_catalog.format('REVOKE %s FROM %I%s, or look who may grant that, and drop %1$s.', member_of, wanted,
                    -- Up to 15 it does not matter who granted it, and nobody else may be named.
                    CASE WHEN pg_catalog.current_setting('server_version_num')::integer >= 160000 THEN ' GRANTED BY ' || grantor ELSE '' END);
        END IF;
        -- Whoever may make roles could have made it in advance, or anew when it was dropped: and have a password for it, a
        -- session or a member that acts as it, or functions that run with its rights.
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting AS s
            WHERE s.setrole = there.oid AND s.setdatabase = 0 AND 'backtrace_functions=' || wanted = ANY (s.setconfig))
        THEN
            RAISE EXCEPTION 'role % is there already, and this file did not make it', wanted
                USING HINT = pg_catalog.format('DROP ROLE %I, and apply this file again; where something belongs to it, look at that first and drop each thing by itself (DROP OWNED BY takes policies and grants that are for it, too).', wanted);
        END IF;
    END LOOP;
END
$$;
GRANT pgmask_ingester TO pgmask_forwarder;
GRANT pgmask_analyst TO pgmask_refresher;

COMMENT ON ROLE pgmask_ingester IS 'pg_mask: may call the two ingest functions and maintain(), and nothing else';
COMMENT ON ROLE pgmask_analyst IS 'pg_mask: may mask values and read masked logins';
COMMENT ON ROLE pgmask_unlimited IS 'pg_mask: masks without a budget, beside pgmask_analyst';
COMMENT ON ROLE pgmask_operator IS 'pg_mask: keeps it in shape, and reads no value';
COMMENT ON ROLE pgmask_recoverer IS 'pg_mask: may open quarantined messages and recover or forget values, each for a reason that is kept';
COMMENT ON ROLE pgmask_writer IS 'pg_mask: ingestion inserts rows as this role; not to be granted to any role';
COMMENT ON ROLE pgmask_nobody IS 'pg_mask: code of other tables than the login table runs as this role while their tokens are lifted; not to be granted to any role, nor anything to it';
COMMENT ON ROLE pgmask_refresher IS 'pg_mask: owns what dashboards read; not to be granted to any role';
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
-- The forwarder hands messages to pg_mask alone, which it can tell only if it reads the catalogs as they are.
ALTER ROLE pgmask_forwarder SET default_transaction_isolation = 'read committed';
-- PostgreSQL 15 does not know this one yet, and keeps it for the day when the server is upgraded. Where
-- auto_explain is loaded there, it refuses what it does not know.
DO $$
BEGIN
    ALTER ROLE pgmask_forwarder SET auto_explain.log_parameter_max_length = 0;
EXCEPTION WHEN undefined_object OR invalid_name THEN NULL;
END
$$;
-- maintain() holds locks of the ledger until its transaction ends. The forwarder opens none that lasts; in a session
-- that somebody forgets, it is ended.
ALTER ROLE pgmask_forwarder SET idle_in_transaction_session_timeout = '60s';

DO $$
BEGIN
    -- Each has its mark, and only now.
    DELETE FROM pg_temp.refused
    WHERE 9 = (
        SELECT pg_catalog.count(*)
        FROM pg_catalog.pg_roles AS r JOIN pg_catalog.pg_db_role_setting AS s ON s.setrole = r.oid AND s.setdatabase = 0
        WHERE r.rolname LIKE 'pgmask\_%' AND 'backtrace_functions=' || r.rolname = ANY (s.setconfig));
END
$$;
COMMIT;
