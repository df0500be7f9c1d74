-- The table that logins are written to. Apply it to each database that takes in logins; applying it
-- again changes nothing. A table that is already there may have more columns, keys, constraints,
-- triggers and partitions; pgmask.login_table names it if it is not public.user_logins.
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
INSERT INTO pg_temp.refused VALUES ('01_user_logins'), ('01_user_logins');

CREATE EXTENSION IF NOT EXISTS pg_mask SCHEMA public;

-- Whoever made a table of that name in advance would get all logins; a view would stay that role's to change.
CREATE FUNCTION pg_temp.refuse_what_others_made() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    taken pg_catalog.record;
    maker pg_catalog.text;
BEGIN
    SELECT r.rolname INTO maker
    FROM pg_extension AS e JOIN pg_roles AS r ON r.oid = e.extowner
    WHERE e.extname = 'pg_mask' AND NOT r.rolsuper;
    IF FOUND THEN
        RAISE EXCEPTION 'the extension pg_mask belongs to %, which is no superuser', maker
            USING HINT = format('That role can have the functions of pg_mask do anything, with messages and as whoever calls them. Where it has changed none of them, and what else it owns in this database does no harm as a superuser''s: REASSIGN OWNED BY %I TO a superuser. If in doubt, load a dump into a database where a superuser has made the extension.', maker);
    END IF;

    -- A schema of that name may be anybody's where the extension is not there.
    IF NOT EXISTS (
        SELECT FROM pg_extension AS e
        JOIN pg_roles AS r ON r.oid = e.extowner
        JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
        WHERE e.extname = 'pg_mask' AND r.rolsuper AND d.deptype = 'e' AND d.classid = 'pg_namespace'::pg_catalog.regclass
          AND d.objid = to_regnamespace('pgmask')
    ) THEN
        RAISE EXCEPTION 'this database has no extension pg_mask of a superuser''s'
            USING HINT = 'CREATE EXTENSION has failed; its error says why.';
    END IF;

    SELECT c.relname, c.relowner::regrole AS owner, CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind
    INTO taken
    FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner
    WHERE c.oid IN (to_regclass('public.user_logins'), to_regclass('public.quarantined_logins'))
      AND NOT r.rolsuper AND r.rolname <> current_user
      AND c.relowner <> (SELECT d.datdba FROM pg_database AS d WHERE d.datname = current_database());
    IF FOUND THEN
        RAISE EXCEPTION 'public.% is there already and belongs to %', taken.relname, taken.owner
            USING HINT = CASE taken.kind
                WHEN 'VIEW' THEN format('Drop it, or ALTER VIEW public.%s RENAME TO another name. Don''t give it to a superuser: a view reads and writes with all rights of its owner.', taken.relname)
                ELSE format('If it is the one that you want: ALTER TABLE public.%s RENAME TO another name, apply this file, and let %s insert its rows into the new table, in a session of its own, but none that holds a hash in place of a token: remask would lift it, a guess of that role''s too, and count it for nobody (docs/adoption.md). What a superuser reads or changes in it may run code of that role''s; and given to a superuser, it keeps its rules, triggers, checks and policies, which then run with that one''s rights.', taken.relname, taken.owner)
            END;
    END IF;
END
$$;
DO $$ BEGIN PERFORM pg_temp.refuse_what_others_made(); END $$;

CREATE TABLE IF NOT EXISTS public.user_logins (
    user_id varchar(128),
    device_type varchar(32),
    masked_ip varchar(256),
    masked_device_id varchar(256),
    locale varchar(32),
    app_version integer,
    create_date date
);

COMMENT ON TABLE public.user_logins IS 'logins, an event a row, as pg_mask takes them in';
COMMENT ON COLUMN public.user_logins.masked_ip IS 'token of the address: equal addresses, equal tokens';
COMMENT ON COLUMN public.user_logins.masked_device_id IS 'token of the device: equal devices, equal tokens';
COMMENT ON COLUMN public.user_logins.app_version IS 'M.m.p as M * 1000000 + m * 1000 + p; app_version_text() turns it back';
COMMENT ON COLUMN public.user_logins.create_date IS 'UTC date the message was sent';

-- Optional, for those who have the room: with these indexes the views of 03_analyst_views.sql read pairs of token and
-- user in order, and an address or a device is found at once. Ten million logins, 1.9 GB, get 1.1 GB for each of the
-- two, and ingestion has to write them, too. CONCURRENTLY, they are made beside ingestion:
--
--     CREATE INDEX CONCURRENTLY user_logins_masked_ip
--         ON public.user_logins (masked_ip, user_id) INCLUDE (create_date);
--     CREATE INDEX CONCURRENTLY user_logins_masked_device_id
--         ON public.user_logins (masked_device_id, user_id) INCLUDE (create_date);

-- No member of the extension: so DROP EXTENSION refuses and names it, where quarantine and ledger would
-- silently be gone otherwise. It shows nothing to whom pgmask.quarantine is not shown.
CREATE OR REPLACE VIEW public.quarantined_logins WITH (security_invoker = true) AS
    SELECT id, message_id, sent_at, receive_count, reason, quarantined_at FROM pgmask.quarantine;

COMMENT ON VIEW public.quarantined_logins IS
    'messages that are no logins, without their bodies; while this view is there, the extension is not dropped by accident';

-- What was made while this file was applied would have been taken for its own.
DO $$
BEGIN
    PERFORM pg_temp.refuse_what_others_made();
    DELETE FROM pg_temp.refused;
END
$$;
DROP FUNCTION pg_temp.refuse_what_others_made();

COMMIT;
