-- What the roles of 00_roles.sql may do in a database. Apply it to each database that takes in logins, as
-- a superuser, after 01. Applied again, it gives back what was taken of these rights, and changes nothing else.
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
INSERT INTO pg_temp.refused VALUES ('02_rights'), ('02_rights');

CREATE FUNCTION pg_temp.refuse_what_others_made() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unmarked pg_catalog.name;
    other pg_catalog.regrole;
BEGIN
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
    -- Rights are granted to roles that 00_roles.sql made: those have its mark.
    SELECT wanted INTO unmarked
    FROM pg_catalog.unnest(ARRAY['pgmask_ingester', 'pgmask_analyst', 'pgmask_unlimited', 'pgmask_operator',
        'pgmask_recoverer', 'pgmask_writer', 'pgmask_nobody', 'pgmask_refresher', 'pgmask_forwarder']) AS wanted
    WHERE NOT EXISTS (
        SELECT FROM pg_catalog.pg_db_role_setting AS s
        WHERE s.setrole = pg_catalog.to_regrole(wanted) AND s.setdatabase = 0 AND 'backtrace_functions=' || wanted = ANY (s.setconfig))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'this server has no role % that sql/00_roles.sql made', unmarked
            USING HINT = 'Apply sql/00_roles.sql first.';
    END IF;
    -- Who could have pg_mask dropped with another extension would have the names in it.
    SELECT e.extname INTO unmarked
    FROM pg_catalog.pg_extension AS ours
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objid = ours.extnamespace
        AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
    JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
    WHERE ours.extname = 'pg_mask';
    IF FOUND THEN
        RAISE EXCEPTION 'the schema that pg_mask is in is a member of extension %', pg_catalog.quote_ident(unmarked)
            USING HINT = 'It would take pg_mask along. Take it out: ALTER EXTENSION ... DROP SCHEMA ....';
    END IF;
    -- As 01_user_logins.sql looks at it, whose error may have been overlooked.
    SELECT c.relowner INTO other
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_roles AS r ON r.oid = c.relowner
    WHERE c.oid = pg_catalog.to_regclass('public.user_logins') AND NOT r.rolsuper AND r.rolname <> current_user
      AND c.relowner <> (SELECT d.datdba FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database());
    IF FOUND THEN
        RAISE EXCEPTION 'public.user_logins belongs to %, who would get all logins', other
            USING HINT = 'Apply sql/01_user_logins.sql first, which says what to do.';
    END IF;
END
$$;
-- A transaction that is open since before pg_mask was made is not looked at as it drops the schema that pg_mask is in, but where the server or
-- the session has loaded the library. So nobody has a right before the last of them has ended, whatever process it is in: an autovacuum may be in a
-- function of anybody's. Once that is so, the event trigger's comment says it: a dump brings rights, and no such comment.
CREATE FUNCTION pg_temp.wait_for_transactions_from_before() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    process pg_catalog.int4;
    who pg_catalog.name;
    prepared pg_catalog.text;
    has_waited pg_catalog.int4 := 0;
BEGIN
    IF to_regprocedure('pgmask.maintain()') IS NULL OR current_setting('shared_preload_libraries') ~ 'pg_mask'
        OR EXISTS (SELECT FROM pg_event_trigger AS t WHERE t.evtname = 'pgmask_watch_drops'
            AND obj_description(t.oid, 'pg_event_trigger') LIKE '%; every transaction knows of it') THEN
        RETURN;
    END IF;
    LOOP
        PERFORM pg_stat_clear_snapshot();
        SELECT a.pid, r.rolname INTO process, who
        FROM pg_stat_activity AS a LEFT JOIN pg_roles AS r ON r.oid = a.usesysid -- the role may have been dropped
        WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
          AND a.xact_start < now()
        ORDER BY a.xact_start LIMIT 1;
        EXIT WHEN NOT FOUND;
        IF has_waited >= 100 THEN
            RAISE EXCEPTION 'process % (%) has a transaction open since before these rights were given', process, coalesce('of role ' || quote_ident(who), 'of no role')
                USING HINT = format('It could drop pg_mask. Apply this file again once it has ended; SELECT pg_catalog.pg_terminate_backend(%s) ends it.', process);
        END IF;
        has_waited := has_waited + 1;
        PERFORM pg_sleep(0.1);
    END LOOP;
    -- One that was prepared is in no process any more.
    SELECT p.gid, p.owner INTO prepared, who FROM pg_prepared_xacts AS p WHERE p.database = current_database() ORDER BY p.prepared LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transaction % of role % is prepared since before these rights were given', quote_literal(prepared), quote_ident(who)
            USING HINT = format('It could drop pg_mask. Apply this file again once it has ended: COMMIT PREPARED %1$L or ROLLBACK PREPARED %1$L.', prepared);
    END IF;
    COMMENT ON EVENT TRIGGER pgmask_watch_drops IS
        'superusers alone drop pg_mask, not whoever owns the schema that it is in; every transaction knows of it';
END
$$;
-- The looks and the grants are one statement: whoever goes on after an error has none of them.
DO $$
BEGIN
    PERFORM pg_temp.refuse_what_others_made();
    PERFORM pg_temp.wait_for_transactions_from_before();
    LOCK TABLE public.user_logins IN ACCESS SHARE MODE; -- so that no other gets its name meanwhile
    PERFORM pg_temp.refuse_what_others_made();

    GRANT USAGE ON SCHEMA pgmask TO pgmask_ingester, pgmask_analyst, pgmask_operator, pgmask_recoverer;
    GRANT EXECUTE ON FUNCTION
        pgmask.ingest_login(jsonb, date),
        pgmask.ingest_login_batch(text[], text[], timestamptz[], integer[]),
        pgmask.ingest_login_batch_bytes(text[], bytea[], timestamptz[], integer[]),
        pgmask.last_quarantined(),
        pgmask.maintain()
        TO pgmask_ingester;
    GRANT EXECUTE ON FUNCTION
        pgmask.mask_pii(text), pgmask.mask_pii(inet), pgmask.mask_pii(uuid),
        pgmask.mask_pii(text, text), pgmask.mask_pii(inet, text), pgmask.mask_pii(uuid, text),
        pgmask.mask_network(inet, integer, integer), pgmask.app_version_text(integer),
        pgmask.current_mask(text, text), pgmask.mask_generation(text)
        TO pgmask_analyst;
    GRANT EXECUTE ON FUNCTION pgmask.maintain(), pgmask.replay_quarantine(text),
        pgmask.reseal_quarantine(integer), pgmask.key_status()
        TO pgmask_operator;
    GRANT EXECUTE ON PROCEDURE pgmask.remask(regclass, text[], text, bigint, bigint, bigint) TO pgmask_operator;
    GRANT EXECUTE ON FUNCTION
        pgmask.remask_begins(), pgmask.remask_parts(regclass), pgmask.wait_for_writers(regclass), pgmask.remask_progress(oid, timestamptz, bigint, bigint),
        pgmask.remask_blocks(oid, text[], text, bigint, bigint), pgmask.remask_left(oid, text[], text),
        pgmask.remask_vault(integer, integer)
        TO pgmask_operator; -- the steps of remask, which acts as its caller
    GRANT USAGE ON SCHEMA pgmask TO pg_monitor;
    GRANT EXECUTE ON FUNCTION pgmask.health_items() TO pgmask_operator, pg_monitor;
    GRANT SELECT ON pgmask.quarantine_summary, pgmask.health TO pgmask_operator;
    GRANT SELECT ON pgmask.health TO pg_monitor;
    GRANT EXECUTE ON PROCEDURE pgmask.unseal_quarantine(bigint, text, text) TO pgmask_recoverer;
    GRANT EXECUTE ON PROCEDURE pgmask.recover_pii(text, text, text), pgmask.forget(text, text) TO pgmask_recoverer;
    GRANT EXECUTE ON FUNCTION
        pgmask.audit_asked(text), pgmask.audit_unseal(bigint, text), pgmask.unsealed(bigint), pgmask.audit_recover(text, text), pgmask.recovered(text),
        pgmask.audit_forget(text, text), pgmask.forgotten(text)
        TO pgmask_recoverer; -- the steps of the three, which act as their caller
    GRANT SELECT (id, message_id, sent_at, receive_count, reason, quarantined_at) ON pgmask.quarantine TO pgmask_recoverer;

    -- The bare names are in the schema that CREATE EXTENSION was given.
    DECLARE
        home pg_catalog.name;
    BEGIN
        SELECT n.nspname INTO home
        FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
        WHERE e.extname = 'pg_mask';
        EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO pgmask_ingester, pgmask_analyst', home);
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION
            %1$I.ingest_login(jsonb, date)
            TO pgmask_ingester', home);
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION
            %1$I.mask_pii(text), %1$I.mask_pii(inet), %1$I.mask_pii(uuid),
            %1$I.mask_pii(text, text), %1$I.mask_pii(inet, text), %1$I.mask_pii(uuid, text),
            %1$I.mask_network(inet, integer, integer), %1$I.app_version_text(integer)
            TO pgmask_analyst', home);
    END;

    GRANT SELECT ON public.user_logins TO pgmask_analyst;
    GRANT INSERT ON public.user_logins TO pgmask_writer;

    DELETE FROM pg_temp.refused;
END
$$;
DROP FUNCTION pg_temp.refuse_what_others_made();
DROP FUNCTION pg_temp.wait_for_transactions_from_before();

COMMIT;
