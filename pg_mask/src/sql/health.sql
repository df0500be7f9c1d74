-- How pg_mask is, for people and for monitoring: a row for each thing that can need somebody. Nothing in it
-- is a value, a token or a path.
--
-- Who reads the view has no right to the tables that it looks at, so a function with its owner's rights does;
-- a part that can't be found out is a row with state "failed", and the other rows are there nevertheless.
CREATE FUNCTION pgmask.health_items()
    RETURNS TABLE (item text, state text, value text, hint text)
    LANGUAGE c VOLATILE SECURITY DEFINER
    -- Who holds a lock on the login table must not make monitoring wait.
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS 'MODULE_PATHNAME', 'health_items_wrapper';

-- What it gives, once the extension is held (held.rs).
CREATE FUNCTION pgmask.health_of_everything()
    RETURNS TABLE (item text, state text, value text, hint text)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- The login roles whose parameters the server must not log, with what 00_roles.sql sets for them.
    quiet CONSTANT pg_catalog.text[] := ARRAY['log_parameter_max_length=0', 'log_parameter_max_length_on_error=0',
        'log_error_verbosity=terse', 'plan_cache_mode=force_generic_plan', 'auto_explain.log_parameter_max_length=0'];
    sampled CONSTANT integer := 2000;
    -- What is the same on each node of a Citus cluster. A key that waits may be on some of them alone.
    ask CONSTANT pg_catalog.text := $ask$SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', k.kind, k.number, k.current, k.check_value, k.state),
        ', ' ORDER BY k.kind, k.number) FROM pgmask.key_status() AS k WHERE k.state <> 'waiting'$ask$;
    bad bigint;
    looked_at bigint;
    in_use integer;
    is_taken_back boolean;
    sealing integer;
    waiting integer;
    names pg_catalog.text;
    login_table pg_catalog.regclass;
    older bigint;
    slot smallint;
    has_old boolean;
    -- maintain() leaves some for three days.
    oldest CONSTANT pg_catalog.date := (now() AT TIME ZONE INTERVAL '0')::date - pgmask.ledger_days() - 3;
BEGIN
    -- With its rights this function runs, and all the others are its to change.
    SELECT r.rolname INTO names FROM pg_extension AS e JOIN pg_roles AS r ON r.oid = e.extowner
    WHERE e.extname = 'pg_mask' AND NOT r.rolsuper;
    IF names IS NOT NULL THEN
        item := 'roles';
        state := 'failed';
        value := format('the extension belongs to %s, which is no superuser', names);
        hint := 'That role can have the functions of pg_mask do anything, and nothing else can be said here. docs/security.md, "What the commands of superusers run", says how a superuser takes them over.';
        RETURN NEXT;
        RETURN;
    END IF;

    item := 'keys';
    BEGIN
        SELECT count(*) FILTER (WHERE k.state IN ('differs', 'missing')),
               max(k.number) FILTER (WHERE k.kind = 'mask' AND k.current),
               max(k.number) FILTER (WHERE k.kind = 'seal' AND k.current),
               count(*) FILTER (WHERE k.kind = 'mask' AND k.state = 'waiting')
        INTO bad, in_use, sealing, waiting FROM pgmask.key_status() AS k;
        -- Who may write to key_check can take a rotation back; what was made under the newer key shows it.
        is_taken_back := EXISTS (SELECT FROM pgmask.audit_end AS e WHERE e.generation > in_use)
            OR EXISTS (
                SELECT FROM generate_series(in_use + 1, in_use + waiting) AS newer
                WHERE EXISTS (SELECT FROM pgmask.vault AS v WHERE v.token >= format('m%s_', newer) AND v.token < format('m%s_g', newer)))
            OR EXISTS (
                SELECT FROM (SELECT v.sealed_value FROM pgmask.vault AS v LIMIT sampled) AS part
                WHERE substr(part.sealed_value, 2, 4) > int4send(sealing))
            OR EXISTS (
                SELECT FROM (SELECT q.sealed_body FROM pgmask.quarantine AS q ORDER BY q.id DESC LIMIT 100) AS part
                WHERE substr(part.sealed_body, 2, 4) > int4send(sealing));
        state := CASE WHEN bad > 0 OR in_use IS NULL OR is_taken_back THEN 'failed' ELSE 'ok' END;
        value := CASE WHEN bad > 0 THEN format('%s keys are missing or differ', bad)
            WHEN is_taken_back THEN 'an older key is in use than before'
            WHEN in_use IS NULL THEN 'pgmask.key_check names none that is in use'
            ELSE format('generation %s is in use, %s wait', in_use, waiting) END;
        hint := CASE WHEN bad > 0 OR in_use IS NULL THEN
            'Nothing is masked until the server has the keyring of this database: SELECT * FROM pgmask.key_status() shows what differs.'
            WHEN is_taken_back THEN
            'Rows are missing from pgmask.key_check. Compare pgmask.audit with the server''s log; call pgmask.rotate_seal_key() and pgmask.rotate_key() at once, which put the newer keys to use again, and find out who could delete them.' END;
    EXCEPTION WHEN OTHERS THEN
        state := 'failed';
        value := format('SQLSTATE %s', SQLSTATE);
        hint := 'SELECT * FROM pgmask.key_status(), as a superuser, says what is wrong.';
    END;
    RETURN NEXT;

    -- On a Citus cluster values are masked on the workers: with other keys nothing would be found, and no error.
    IF EXISTS (SELECT FROM pg_extension AS e WHERE e.extname = 'citus') THEN
        item := 'nodes';
        BEGIN
            EXECUTE ask INTO names;
            EXECUTE 'SELECT count(*), string_agg(format(''%s:%s'', r.nodename, r.nodeport), '', '' ORDER BY r.nodename, r.nodeport)
                    FILTER (WHERE NOT r.success OR r.result IS DISTINCT FROM $1)
                FROM pg_catalog.run_command_on_workers($2) AS r'
            INTO looked_at, names USING names, ask;
            state := CASE WHEN names IS NULL THEN 'ok' ELSE 'failed' END;
            value := coalesce('other keys than here, or no answer: ' || names, format('workers with the keys of this node: %s', looked_at));
            hint := CASE state WHEN 'failed' THEN
                'Until all nodes have the same keyring and generation, the same value has different tokens. docs/operations.md, "Citus", says how they get them.' END;
        EXCEPTION WHEN OTHERS THEN
            state := 'failed';
            value := format('SQLSTATE %s', SQLSTATE);
            hint := 'The workers could not be asked: SELECT * FROM run_command_on_workers(''SELECT 1''), as a superuser, says why.';
        END;
        RETURN NEXT;
    END IF;

    item := 'keyring_place';
    state := CASE WHEN pgmask.keyring_is_in_data_directory() THEN 'warning' ELSE 'ok' END;
    value := CASE state WHEN 'ok' THEN 'outside the data directory' ELSE 'inside the data directory' END;
    hint := CASE state WHEN 'warning' THEN
        'Every base backup holds it beside the tokens, and it is deleted with that directory. Move it, and let pgmask.keyring_file name its new place.' END;
    RETURN NEXT;

    item := 'guess_limit';
    state := CASE WHEN current_setting('pgmask.guess_limit') = '-1' OR NOT pgmask.guess_limit_is_shared()
        THEN 'warning' ELSE 'ok' END;
    value := CASE WHEN current_setting('pgmask.guess_limit') = '-1' THEN 'no limit'
        WHEN pgmask.guess_limit_is_shared() THEN format('%s values an hour, all sessions of a role together', current_setting('pgmask.guess_limit'))
        ELSE format('%s values an hour, each session by itself', current_setting('pgmask.guess_limit')) END;
    hint := CASE WHEN current_setting('pgmask.guess_limit') = '-1' THEN 'Without a limit, addresses can be found by trying. Set pgmask.guess_limit.'
        WHEN state = 'warning' THEN 'A new session begins a new budget. Add pg_mask to shared_preload_libraries and restart the server.' END;
    RETURN NEXT;

    item := 'ledger';
    SELECT count(*) INTO bad FROM pgmask.ledger_slot AS s
    WHERE s.look_when_old < oldest;
    -- Where maintain() has never looked: rows that came first are first.
    BEGIN
        FOR slot IN SELECT s.slot FROM pgmask.ledger_slot AS s WHERE s.look_when_old IS NULL LOOP
            EXECUTE format('SELECT EXISTS (SELECT FROM (SELECT l.taken_day FROM pgmask.ledger_%s AS l LIMIT 100) AS part
                WHERE part.taken_day < $1)', slot) INTO has_old USING oldest;
            bad := bad + has_old::integer;
        END LOOP;
    EXCEPTION WHEN lock_not_available THEN NULL; -- maintain() is at work there
    END;
    state := CASE WHEN bad > 0 THEN 'warning' ELSE 'ok' END;
    value := CASE WHEN bad > 0 THEN format('%s of its 33 slots are to be emptied', bad) ELSE format('kept for %s days', pgmask.ledger_days()) END
        || coalesce((SELECT format(', maintained at %s UTC', to_char(max(s.maintained_at) AT TIME ZONE INTERVAL '0', 'YYYY-MM-DD HH24:MI'))
            FROM pgmask.ledger_slot AS s HAVING max(s.maintained_at) IS NOT NULL), ', never maintained');
    hint := CASE state WHEN 'warning' THEN 'Call pgmask.maintain() daily, and see that no long transaction keeps it from the ledger.' END;
    RETURN NEXT;

    item := 'quarantine';
    SELECT count(*) FILTER (WHERE q.quarantined_at > now() - interval '1 hour'), count(*) INTO bad, looked_at
    FROM pgmask.quarantine AS q WHERE q.quarantined_at > now() - interval '1 day';
    state := CASE WHEN looked_at > 0 THEN 'warning' ELSE 'ok' END;
    value := format('%s in the last hour, %s in the last day', bad, looked_at);
    hint := CASE state WHEN 'warning' THEN
        'pgmask.quarantine_summary shows the reasons; once the cause is gone, pgmask.replay_quarantine() takes them in.' END;
    RETURN NEXT;

    item := 'older_tokens';
    login_table := to_regclass(current_setting('pgmask.login_table'));
    BEGIN
        IF login_table IS NULL THEN
            state := 'failed';
            value := 'there is no login table';
            hint := 'Apply sql/01_user_logins.sql, or let pgmask.login_table name the table.';
        ELSIF in_use IS NULL THEN
            state := 'warning';
            value := 'not looked at, as no key is in use';
            hint := 'See the item keys.';
        ELSE
            SELECT s.looked_at, s.older INTO looked_at, older FROM pgmask.sample_older_tokens(in_use, sampled) AS s;
            state := CASE WHEN older > 0 THEN 'warning' ELSE 'ok' END;
            value := format('%s of %s sampled rows', older, looked_at);
            hint := CASE state WHEN 'warning' THEN format('CALL pgmask.remask(%L) lifts them.', login_table) END;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        state := 'failed';
        value := format('SQLSTATE %s', SQLSTATE);
        -- The table can run code, which has a session of its own.
        hint := CASE WHEN SQLSTATE = '42501' AND (starts_with(SQLERRM, 'this session has ') OR starts_with(SQLERRM, 'code of tables is not run'))
            THEN 'Ask by itself, in a session that has made and called nothing else.'
            ELSE 'Compare the login table with sql/01_user_logins.sql.' END;
    END;
    RETURN NEXT;

    -- Ranges of tokens are found by the index; how values are sealed is looked at in some of them.
    item := 'vault';
    SELECT CASE
            WHEN EXISTS (SELECT FROM pgmask.vault AS v WHERE v.token < format('m%s_', in_use))
              OR EXISTS (SELECT FROM pgmask.vault AS v WHERE v.token > format('m%s_g', in_use))
            THEN 'warning: it holds tokens of an older generation'
            WHEN EXISTS (
                SELECT FROM (SELECT v.sealed_value FROM pgmask.vault AS v LIMIT sampled) AS part
                WHERE substr(part.sealed_value, 2, 4) < int4send(sealing))
            THEN 'warning: it holds values that were sealed under an older key'
            ELSE 'ok: on' END
    INTO names;
    state := split_part(names, ': ', 1);
    value := CASE WHEN state = 'ok' AND current_setting('pgmask.vault') = 'off'
        THEN 'off' ELSE split_part(names, ': ', 2) END;
    hint := CASE state WHEN 'warning' THEN 'CALL pgmask.remask(''pgmask.vault'') brings it up to date.' END;
    RETURN NEXT;

    item := 'logging';
    SELECT string_agg(found.rolname, ', ' ORDER BY found.rolname) INTO names
    FROM (
        SELECT r.rolname
        FROM pg_roles AS r
        WHERE r.rolcanlogin AND NOT r.rolsuper AND to_regrole('pgmask_ingester') IS NOT NULL
          AND pg_has_role(r.oid, to_regrole('pgmask_ingester')::oid, 'MEMBER')
          -- What is set for the role in this database holds, or else for the role, or else in this database.
          AND EXISTS (SELECT FROM unnest(quiet) AS wanted WHERE wanted IS DISTINCT FROM (
              SELECT config
              FROM pg_db_role_setting AS s CROSS JOIN unnest(s.setconfig) AS config
              WHERE split_part(config, '=', 1) = split_part(wanted, '=', 1) AND s.setrole IN (r.oid, 0)
                AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
              ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1))
        ORDER BY r.rolname LIMIT 5
    ) AS found;
    state := CASE WHEN names IS NULL THEN 'ok' ELSE 'warning' END;
    value := coalesce('the server may log messages of ' || names, 'the server logs no message of a role that ingests');
    hint := CASE state WHEN 'warning' THEN 'Set for each what sql/00_roles.sql sets for pgmask_forwarder. After a major upgrade, apply that file again.' END;
    RETURN NEXT;

    -- Rights are given to roles by name: one that others made, or made anew, has members and functions of theirs.
    item := 'roles';
    SELECT string_agg(r.rolname, ', ' ORDER BY r.rolname) INTO names
    FROM pg_roles AS r
    WHERE r.rolname IN ('pgmask_ingester', 'pgmask_analyst', 'pgmask_unlimited', 'pgmask_operator', 'pgmask_recoverer',
            'pgmask_writer', 'pgmask_nobody', 'pgmask_refresher', 'pgmask_forwarder')
      AND NOT EXISTS (SELECT FROM pg_db_role_setting AS s
          WHERE s.setrole = r.oid AND s.setdatabase = 0 AND 'backtrace_functions=' || r.rolname = ANY (s.setconfig));
    IF names IS NOT NULL THEN
        state := 'warning';
        value := 'not made by sql/00_roles.sql: ' || names;
        hint := 'Who made them may use their rights. Look at their members and at what belongs to them, drop them, and apply sql/ again.';
    ELSE
        -- A function that somebody made who could act as one of them goes on with its rights, whatever is taken from that one.
        SELECT string_agg(r.rolname, ', ' ORDER BY r.rolname) INTO names
        FROM pg_roles AS r
        WHERE r.rolname IN ('pgmask_ingester', 'pgmask_analyst', 'pgmask_unlimited', 'pgmask_operator', 'pgmask_recoverer',
                'pgmask_writer', 'pgmask_nobody', 'pgmask_refresher', 'pgmask_forwarder')
          -- User mappings, which anybody with a server may make for a role, give it nothing.
          AND EXISTS (SELECT FROM pg_shdepend AS d
              WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'o'
                AND d.classid <> 'pg_user_mapping'::regclass
                -- What sql/05_dashboards.sql gives to it, here and perhaps in other databases.
                AND NOT (r.rolname = 'pgmask_refresher' AND d.classid = 'pg_class'::regclass
                    AND (d.dbid <> (SELECT b.oid FROM pg_database AS b WHERE b.datname = current_database())
                        OR EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                            WHERE c.oid = d.objid AND c.relkind = 'm' AND n.nspname = 'logins' AND starts_with(c.relname, 'stored_')))));
        state := CASE WHEN names IS NULL THEN 'ok' ELSE 'warning' END;
        value := 'own something: ' || names;
        hint := CASE state WHEN 'warning' THEN
            'Who made it may still use their rights. Look at it in each database, and drop each thing by itself: DROP OWNED BY would take policies and grants that are for the role, too.' END;
        IF names IS NULL THEN
            SELECT string_agg(m.member::regrole::text || ' of ' || m.roleid::regrole::text, ', ' ORDER BY m.roleid, m.member) INTO names
            FROM pg_auth_members AS m WHERE m.roleid IN (to_regrole('pgmask_refresher'), to_regrole('pgmask_nobody'));
            state := CASE WHEN names IS NULL THEN 'ok' ELSE 'warning' END;
            value := coalesce('members: ' || names, 'as sql/00_roles.sql made them');
            hint := CASE state WHEN 'warning' THEN 'Nobody is to act as these two. Revoke it, and look at what was done as them.' END;
        END IF;
    END IF;
    RETURN NEXT;

    -- Whose rights come to code of the login table, beside those of 02_rights.sql and what a DBA granted?
    item := 'writer';
    IF to_regrole('pgmask_writer') IS NULL THEN
        state := 'failed';
        value := 'there is no role pgmask_writer';
        hint := 'Apply sql/00_roles.sql: without that role nothing is taken in.';
    ELSE
        WITH RECURSIVE reached (role) AS (
            SELECT m.roleid FROM pg_auth_members AS m WHERE m.member = to_regrole('pgmask_writer')
            UNION SELECT m.roleid FROM pg_auth_members AS m JOIN reached ON m.member = reached.role
        ), members (role) AS (
            SELECT m.member FROM pg_auth_members AS m WHERE m.roleid = to_regrole('pgmask_writer')
            UNION SELECT m.member FROM pg_auth_members AS m JOIN members ON m.roleid = members.role
        )
        SELECT concat_ws('; ',
            (SELECT 'has the rights of ' || string_agg(r.role::regrole::text, ', ' ORDER BY r.role) FROM (SELECT role FROM reached ORDER BY role LIMIT 5) AS r),
            (SELECT 'may be used by ' || string_agg(m.role::regrole::text, ', ' ORDER BY m.role) FROM (SELECT role FROM members ORDER BY role LIMIT 5) AS m)
        ) INTO names;
        state := CASE WHEN names = '' THEN 'ok' ELSE 'warning' END;
        value := CASE WHEN names = '' THEN 'pgmask_writer has no member and is a member of no role' ELSE 'pgmask_writer ' || names END;
        hint := CASE state WHEN 'warning' THEN
            'Code of the login table runs with its rights, and its members may insert logins. Revoke what is not meant: REVOKE the role FROM pgmask_writer, or pgmask_writer FROM the member.' END;
    END IF;
    RETURN NEXT;
END
$$;

CREATE VIEW pgmask.health AS SELECT item, state, value, hint FROM pgmask.health_items();

COMMENT ON FUNCTION pgmask.health_items() IS 'the rows of pgmask.health';
COMMENT ON FUNCTION pgmask.health_of_everything() IS 'what pgmask.health_items() looks at';
COMMENT ON VIEW pgmask.health IS 'how pg_mask is: a row for each thing that can need somebody';
COMMENT ON COLUMN pgmask.health.state IS 'ok, warning or failed';
COMMENT ON COLUMN pgmask.health.hint IS 'what to do, unless all is well';
