-- What CREATE EXTENSION pg_mask VERSION '0.1.0' makes. Generated from pg_mask/src: make install-script
\echo Use "CREATE EXTENSION pg_mask" to load this file. \quit

-- Whatever others may have put into the schema that CREATE EXTENSION was given, names mean PostgreSQL's own.
SET LOCAL search_path TO pg_catalog, pg_temp;

-- A schema with the name of whoever does this comes first in the search path, and so does one that somebody else made under
-- that name. Who owns the schema has the names in it.
DO $$
DECLARE
    maker pg_catalog.text := (
        SELECT r.rolname FROM pg_namespace AS n JOIN pg_roles AS r ON r.oid = n.nspowner
        WHERE n.oid = '@extschema@'::regnamespace AND n.nspname = current_user AND r.rolname <> current_user AND NOT r.rolsuper
    );
BEGIN
    IF maker IS NOT NULL THEN
        RAISE EXCEPTION 'schema % belongs to role %, who could exchange what is called there by a bare name', current_user, quote_ident(maker)
            USING ERRCODE = 'insufficient_privilege', HINT = 'CREATE EXTENSION pg_mask SCHEMA public, or another that you own.';
    END IF;
END $$;

-- Nor may the extension go with another, by way of that schema or of PL/pgSQL. Whoever is about to see to that is waited for, by a comment
-- that stays as it is; from now on pg_mask refuses it.
DO $$
DECLARE
    other pg_catalog.text;
BEGIN
    EXECUTE format('COMMENT ON SCHEMA %s IS %L', '@extschema@'::regnamespace, obj_description('@extschema@'::regnamespace, 'pg_namespace'));
    SELECT e.extname INTO other
    FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
    WHERE d.classid = 'pg_namespace'::regclass AND d.objid = '@extschema@'::regnamespace AND d.deptype = 'e'
      AND d.refclassid = 'pg_extension'::regclass;
    IF FOUND THEN
        RAISE EXCEPTION 'schema % is a member of extension %, which would take pg_mask along', '@extschema@', quote_ident(other)
            USING ERRCODE = 'insufficient_privilege', HINT = 'Take it out: ALTER EXTENSION ... DROP SCHEMA ....';
    END IF;
    IF EXISTS (SELECT FROM pg_extension AS e JOIN pg_roles AS r ON r.oid = e.extowner WHERE e.extname = 'plpgsql' AND NOT r.rolsuper) THEN
        RAISE EXCEPTION 'the extension plpgsql belongs to a role that is no superuser, and would take pg_mask along'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Use a database whose plpgsql a superuser has made, as each has it at first.';
    END IF;
    -- The language may have another owner than its extension, once that was given away, and could be renamed or dropped by it.
    IF EXISTS (SELECT FROM pg_language AS l JOIN pg_roles AS r ON r.oid = l.lanowner WHERE l.lanname = 'plpgsql' AND NOT r.rolsuper) THEN
        RAISE EXCEPTION 'the language plpgsql belongs to a role that is no superuser'
            USING ERRCODE = 'insufficient_privilege', HINT = 'ALTER LANGUAGE plpgsql OWNER TO a superuser.';
    END IF;
    -- What a former owner of it has added could be dropped with a table that it depends on, and all of that would go along.
    SELECT pg_describe_object(d.classid, d.objid, d.objsubid) INTO other
    FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
    WHERE d.refclassid = 'pg_extension'::regclass AND e.extname = 'plpgsql' AND d.deptype = 'e'
      AND NOT (d.classid = 'pg_language'::regclass AND d.objid IN (SELECT l.oid FROM pg_language AS l WHERE l.lanname = 'plpgsql'))
      AND NOT (d.classid = 'pg_proc'::regclass AND d.objid IN (
          SELECT unnest(ARRAY[l.lanplcallfoid, l.laninline, l.lanvalidator]) FROM pg_language AS l WHERE l.lanname = 'plpgsql'))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the extension plpgsql has % as a member, and would take pg_mask along with that', other
            USING ERRCODE = 'insufficient_privilege', HINT = 'Take it out: ALTER EXTENSION plpgsql DROP ....';
    END IF;
END $$;

-- Nobody else may own this schema: one that is there already is an error.
CREATE SCHEMA pgmask;

-- Which keys this database was masked and sealed with. No key is in here, only what tells keys apart.
--
-- What CREATE EXTENSION writes and what a dump brings are kept apart, because a restore does both, in
-- this order: it creates the extension beside whatever keyring that server has, and then copies rows.
-- The dump's rows count as soon as there are any. So no trigger has to undo anything, and every way to
-- restore a dump ends with the rows that were dumped.

-- What a dump brought. It has no unique key: restored over other rows, none may be lost, and rows that
-- contradict each other fit no keyring.
CREATE TABLE pgmask.key_check_restored (
    generation integer CHECK (generation > 0),
    -- Longer ones would have to be read by whoever masks.
    check_value text NOT NULL CHECK (octet_length(check_value) <= 64),
    created_at timestamptz NOT NULL,
    seal_id integer CHECK (seal_id > 0),
    CHECK ((generation IS NULL) <> (seal_id IS NULL))
);

-- What CREATE EXTENSION wrote, and what was rotated since. No dump holds this table.
CREATE TABLE pgmask.key_check_own () INHERITS (pgmask.key_check_restored);

-- The rows that count: see key_check.rs, which reads the tables in the same way.
CREATE VIEW pgmask.key_check AS
    SELECT generation, check_value, created_at, seal_id
    FROM pgmask.key_check_restored AS found
    WHERE found.tableoid = 'pgmask.key_check_restored'::pg_catalog.regclass
       OR NOT EXISTS (SELECT FROM ONLY pgmask.key_check_restored);

-- pg_dump copies the rows that count, whichever table they are in; they come back as restored ones.
SELECT pg_catalog.pg_extension_config_dump('pgmask.key_check_restored',
    'WHERE tableoid = ''pgmask.key_check_restored''::pg_catalog.regclass
     UNION ALL SELECT generation, check_value, created_at, seal_id FROM pgmask.key_check_own
     WHERE NOT EXISTS (SELECT FROM ONLY pgmask.key_check_restored)');

COMMENT ON VIEW pgmask.key_check IS
    'which keys this database was masked and sealed with; the highest generation is in use';
COMMENT ON COLUMN pgmask.key_check.generation IS 'generation of a mask key, NULL for a seal key';
COMMENT ON COLUMN pgmask.key_check.check_value IS
    'first 8 bytes of HMAC-SHA-256(HKDF(key, "pg_mask/v1/check"), "pg_mask"), in hex';
COMMENT ON COLUMN pgmask.key_check.created_at IS 'when the key was made';
COMMENT ON COLUMN pgmask.key_check.seal_id IS 'id of a seal key, NULL for a mask key';
COMMENT ON TABLE pgmask.key_check_restored IS 'rows of pgmask.key_check that a dump brought; they count as soon as there are any';
COMMENT ON TABLE pgmask.key_check_own IS 'rows of pgmask.key_check that CREATE EXTENSION wrote; never dumped from here';

-- The tables, and which of their rows a dump takes along. The ledger is in ledger.sql.
CREATE TABLE pgmask.quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id text NOT NULL,
    sent_at timestamptz,
    receive_count integer,
    reason text NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    sealed_body bytea NOT NULL
);
-- Statistics would keep what is deleted.
ALTER TABLE pgmask.quarantine ALTER COLUMN sealed_body SET STATISTICS 0;

-- Which database sealed bodies belong to: moved to another one, they don't open. A restore adds the ids of
-- the database that was dumped to the one that CREATE EXTENSION makes.
CREATE TABLE pgmask.database_id (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO pgmask.database_id DEFAULT VALUES;

CREATE VIEW pgmask.quarantine_summary AS
    SELECT reason, (quarantined_at AT TIME ZONE INTERVAL '0')::date AS day, count(*) AS messages
    FROM pgmask.quarantine
    GROUP BY 1, 2
    ORDER BY 3 DESC, 1, 2;

-- Who was shown what that was never meant to be shown, and why. Each row holds a MAC, under a key of the
-- keyring, over itself and the MAC of the row before, so pgmask.verify_audit() finds what was changed.
CREATE TABLE pgmask.audit (
    id bigint PRIMARY KEY CHECK (id > 0),
    done_at timestamptz NOT NULL,
    login_role text NOT NULL,
    acting_role text NOT NULL,
    action text NOT NULL,
    quarantine_id bigint,
    token text,
    reason text NOT NULL,
    generation integer NOT NULL,
    mac bytea NOT NULL
);

-- Where these rows end: the last one's number and MAC, and a MAC of that. The one row is made with the first of
-- them, so none is in the way of a restore, and is locked by who adds another.
CREATE TABLE pgmask.audit_end (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id bigint NOT NULL,
    generation integer NOT NULL,
    mac bytea NOT NULL,
    proof bytea NOT NULL
);

-- All of it belongs in a dump: messages are counted once, nothing is lost.
SELECT pg_catalog.pg_extension_config_dump('pgmask.quarantine', '');
SELECT pg_catalog.pg_extension_config_dump('pgmask.quarantine_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('pgmask.database_id', '');
SELECT pg_catalog.pg_extension_config_dump('pgmask.audit', '');
SELECT pg_catalog.pg_extension_config_dump('pgmask.audit_end', '');

-- Opening a quarantined message. The procedure acts as its caller, so that the audit names who really asked,
-- and has no settings of its own, so that it may commit: every name in it is qualified. It commits first what the
-- arguments of the call have begun: who asks next would have to wait for that, too.
CREATE PROCEDURE pgmask.unseal_quarantine(id bigint, reason text, INOUT body text DEFAULT NULL)
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgmask.audit_asked('unseal_quarantine');
    COMMIT;
    PERFORM pgmask.audit_unseal(id, reason);
    COMMIT;
    body := pgmask.unsealed(id);
END
$$;

-- The vault: each value that ingestion has masked while pgmask.vault was on, once, by its token. Tokens are compared
-- byte by byte, whatever the database's collation is.
CREATE TABLE pgmask.vault (
    token text COLLATE "C" PRIMARY KEY CHECK (octet_length(token) <= 100),
    domain text NOT NULL CHECK (octet_length(domain) <= 1024),
    sealed_value bytea,
    kept_at timestamptz NOT NULL DEFAULT now()
);

-- Statistics would keep what is erased.
ALTER TABLE pgmask.vault ALTER COLUMN sealed_value SET STATISTICS 0;

SELECT pg_catalog.pg_extension_config_dump('pgmask.vault', '');

-- These act as their caller, so that the audit names who really asked, and have no settings of their own, so
-- that they may commit: every name in them is qualified. They commit first what the arguments of the call have begun.
CREATE PROCEDURE pgmask.recover_pii(token text, reason text, INOUT value text DEFAULT NULL)
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgmask.audit_asked('recover_pii');
    COMMIT;
    PERFORM pgmask.audit_recover(token, reason);
    COMMIT;
    value := pgmask.recovered(token);
END
$$;

CREATE PROCEDURE pgmask.forget(token text, reason text)
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgmask.audit_asked('forget');
    COMMIT;
    PERFORM pgmask.audit_forget(token, reason);
    COMMIT;
    -- It waits for others, and has to see what they did.
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    PERFORM pgmask.forgotten(token);
    -- Or what the client has sent behind it, and fails, would undo what it is told of.
    COMMIT;
END
$$;

-- The ledger, a ring of partitions: one for each value of the day of sending modulo 32 (days counted from
-- 2000-01-01), and number 32 for messages without a believable time of sending. All are made here and are
-- members of the extension: none comes or goes later, so a dump, a restore or a publication has them all.
--
-- A redelivered message has the time of sending that it had before, so it meets its own entry in the same
-- partition. That partition's key is therefore the message id alone, and there is none over all of them.
CREATE TABLE pgmask.ledger (
    message_id uuid NOT NULL,
    slot smallint NOT NULL,
    taken_day date NOT NULL
) PARTITION BY LIST (slot);

-- For maintain(): it reads a slot again when this day has become too old. NULL, as here and after a
-- restore, is at once: a dump leaves this table out.
CREATE TABLE pgmask.ledger_slot (
    slot smallint PRIMARY KEY,
    look_when_old date,
    -- When maintain() last got through: the newest of all rows counts.
    maintained_at timestamptz
);

DO $$
DECLARE
    slot integer;
    partition pg_catalog.text;
BEGIN
    FOR slot IN 0..32 LOOP
        partition := pg_catalog.format('pgmask.ledger_%s', slot);
        EXECUTE pg_catalog.format(
            'CREATE TABLE %s PARTITION OF pgmask.ledger (PRIMARY KEY (message_id)) FOR VALUES IN (%s)',
            partition, slot);
        PERFORM pg_catalog.pg_extension_config_dump(partition::pg_catalog.regclass, '');
        INSERT INTO pgmask.ledger_slot (slot) VALUES (slot);
    END LOOP;
END
$$;

-- Forgets the messages that were taken in more than pgmask.ledger_days ago. A slot in which all are as old
-- is truncated, which costs next to nothing. Where the last of them will be old within two days, the others
-- wait for that; where it will not, the old ones are deleted.
CREATE FUNCTION pgmask.maintain() RETURNS TABLE (slots_emptied integer, rows_deleted bigint)
    LANGUAGE c VOLATILE SECURITY DEFINER
    -- After one second of this time (deadlock_timeout) an autovacuum makes way.
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS 'MODULE_PATHNAME', 'maintain_wrapper';

-- What it does once the extension is held (held.rs).
CREATE FUNCTION pgmask.maintain_ledger(OUT slots_emptied integer, OUT rows_deleted bigint)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    today CONSTANT pg_catalog.date := (now() AT TIME ZONE INTERVAL '0')::date;
    oldest CONSTANT pg_catalog.date := today - pgmask.ledger_days();
    -- A snapshot that is older than the lock does not show what the slot holds.
    may_truncate CONSTANT boolean := current_setting('transaction_isolation') LIKE 'read %';
    due smallint;
    all_old smallint[] := '{}';
    partition pg_catalog.text;
    first_day pg_catalog.date;
    first_to_keep pg_catalog.date;
    last_day pg_catalog.date;
    deleted bigint;
BEGIN
    slots_emptied := 0;
    rows_deleted := 0;
    -- A day after today was noted while the clock was ahead. A slot that is locked is seen to by another
    -- maintain().
    FOR due IN
        SELECT s.slot FROM pgmask.ledger_slot AS s
        WHERE s.look_when_old IS NULL OR s.look_when_old < oldest OR s.look_when_old > today
        ORDER BY s.slot FOR UPDATE SKIP LOCKED
    LOOP
        partition := format('pgmask.ledger_%s', due);
        EXECUTE format('SELECT min(taken_day), min(taken_day) FILTER (WHERE taken_day >= $1), max(taken_day)
            FROM %s', partition) INTO first_day, first_to_keep, last_day USING oldest;
        IF may_truncate AND last_day < oldest THEN
            all_old := all_old || due;
        ELSIF may_truncate AND last_day < oldest + 2 THEN
            UPDATE pgmask.ledger_slot AS s SET look_when_old = last_day WHERE s.slot = due;
        ELSE
            IF first_day < oldest THEN
                EXECUTE format('DELETE FROM %s WHERE taken_day < $1', partition) USING oldest;
                GET DIAGNOSTICS deleted = ROW_COUNT;
                rows_deleted := rows_deleted + deleted;
            END IF;
            -- Rows that come later are of today or later.
            UPDATE pgmask.ledger_slot AS s SET look_when_old = least(first_to_keep, today) WHERE s.slot = due;
        END IF;
    END LOOP;

    -- A truncated slot is locked until the transaction ends, so this comes last; and while one is locked,
    -- no other is waited for: a batch that holds the one could wait for the other.
    FOREACH due IN ARRAY all_old LOOP
        partition := format('pgmask.ledger_%s', due);
        BEGIN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE %s', partition,
                CASE WHEN slots_emptied > 0 THEN 'NOWAIT' END);
        EXCEPTION
            -- A dump reads it, say, or a batch that is not committed yet has written there. The next
            -- maintain() tries again.
            WHEN lock_not_available THEN EXIT;
        END;
        -- Nothing can be written there any more. Was anything, until now?
        EXECUTE format('SELECT min(taken_day) FROM %s WHERE taken_day >= $1', partition)
            INTO first_to_keep USING oldest;
        CONTINUE WHEN first_to_keep IS NOT NULL;
        EXECUTE format('TRUNCATE %s', partition);
        slots_emptied := slots_emptied + 1;
        UPDATE pgmask.ledger_slot AS s SET look_when_old = today WHERE s.slot = due;
    END LOOP;

    -- For pgmask.health, once a minute at most, and in a row that is not locked: none is waited for.
    IF may_truncate AND NOT EXISTS (SELECT FROM pgmask.ledger_slot AS s WHERE s.maintained_at > now() - interval '1 minute') THEN
        UPDATE pgmask.ledger_slot AS s SET maintained_at = now()
        WHERE s.slot = (SELECT f.slot FROM pgmask.ledger_slot AS f ORDER BY f.slot LIMIT 1 FOR UPDATE SKIP LOCKED);
    END IF;
END
$$;

COMMENT ON FUNCTION pgmask.maintain_ledger() IS 'what pgmask.maintain() does';

-- Going through a table in ranges that commit. The procedure acts as its caller and has no settings of its
-- own, so that it may commit: every name in it is qualified, and what is more than a step is a function
-- with a pinned search path.

-- The tables that hold the rows of a table: itself, or its partitions and those that inherit from it.
CREATE FUNCTION pgmask.remask_parts(relation regclass) RETURNS oid[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parts pg_catalog.oid[];
BEGIN
    WITH RECURSIVE tree (id) AS (
        SELECT relation::oid
        UNION
        SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.id
    )
    SELECT array_agg(c.oid ORDER BY c.oid) INTO parts
    FROM tree JOIN pg_class c ON c.oid = tree.id
    WHERE c.relkind = 'r';
    IF parts IS NULL THEN
        RAISE EXCEPTION '% holds no rows that could be lifted', relation
            USING ERRCODE = 'wrong_object_type', HINT = 'Give a table, or a partitioned table.';
    END IF;
    RETURN parts;
END
$$;

-- Whoever began to write before a rotation may write older tokens until the end of the transaction.
CREATE FUNCTION pgmask.wait_for_writers(relation regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    longest CONSTANT interval := '1 minute';
    began CONSTANT pg_catalog.timestamptz := clock_timestamp();
    tables CONSTANT pg_catalog.oid[] := pgmask.remask_parts(relation) || relation::oid;
    writers pg_catalog.text[];
    left_over integer;
BEGIN
    SELECT array_agg(DISTINCT l.virtualtransaction) INTO writers
    FROM pg_locks l
    WHERE l.locktype = 'relation' AND l.relation = ANY (tables) AND l.granted
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
      AND l.pid IS DISTINCT FROM pg_backend_pid();
    LOOP
        SELECT count(DISTINCT l.virtualtransaction) INTO left_over
        FROM pg_locks l
        WHERE l.locktype = 'relation' AND l.relation = ANY (tables) AND l.virtualtransaction = ANY (writers);
        EXIT WHEN left_over = 0;
        IF clock_timestamp() > began + longest THEN
            RAISE EXCEPTION '% transactions have been writing to % since before this call', left_over, relation
                USING ERRCODE = 'lock_not_available',
                      HINT = 'They may still write what belongs to an older key. End them (pg_locks, pg_stat_activity and pg_prepared_xacts show them) and call it again.';
        END IF;
        PERFORM pg_sleep(0.02);
    END LOOP;
END
$$;

CREATE FUNCTION pgmask.remask_progress(part oid, began timestamptz, block bigint, lifted bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    blocks CONSTANT bigint := greatest(1, block, pg_relation_size(part) / current_setting('block_size')::bigint);
    seconds CONSTANT pg_catalog.float8 := greatest(0.001, extract(epoch FROM clock_timestamp() - began));
BEGIN
    RAISE NOTICE 'remask: % of %, % rows lifted, %/s, % left', part::regclass, round(100.0 * block / blocks) || ' %',
        lifted, round((lifted / seconds)::numeric),
        make_interval(secs => round((seconds * (blocks - block) / greatest(1, block))::numeric)::float8);
END
$$;

CREATE PROCEDURE pgmask.remask(
    relation regclass,
    columns text[] DEFAULT NULL,
    domain text DEFAULT NULL,
    batch_blocks bigint DEFAULT 256,
    INOUT lifted bigint DEFAULT NULL,
    INOUT left_alone bigint DEFAULT NULL
)
    LANGUAGE plpgsql AS $$
DECLARE
    say_every CONSTANT pg_catalog.interval := '5 seconds';
    longest CONSTANT pg_catalog.interval := '1 minute';
    part pg_catalog.oid;
    block pg_catalog.int8;
    blocks pg_catalog.int8[];
    step pg_catalog.record;
    began pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    said pg_catalog.timestamptz := began;
    moved pg_catalog.timestamptz;
    lifted_here pg_catalog.int8;
    limited_by pg_catalog.oid;
    -- So many digits of a token say which part of the vault it is in. A part has a few thousand values.
    digits pg_catalog.int4;
    vault_parts pg_catalog.int4;
BEGIN
    PERFORM pgmask.remask_begins(); -- before anything that waits for others
    lifted := 0;
    left_alone := 0;
    PERFORM pgmask.wait_for_writers(relation);
    COMMIT; -- so that what is read next shows what they did, whatever the isolation
    -- What is in the vault is bound to its token, so it is sealed anew as well.
    IF relation::pg_catalog.oid OPERATOR(pg_catalog.=) 'pgmask.vault'::pg_catalog.regclass::pg_catalog.oid THEN
        IF columns IS NOT NULL OR domain IS NOT NULL THEN
            RAISE EXCEPTION 'the vault itself says which of its columns hold tokens, and of which domains'
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave the arguments columns and domain out.';
        END IF;
        digits := CASE
            WHEN pg_catalog.pg_relation_size('pgmask.vault') OPERATOR(pg_catalog.<) 1000000 THEN 0
            WHEN pg_catalog.pg_relation_size('pgmask.vault') OPERATOR(pg_catalog.<) 16000000 THEN 1
            WHEN pg_catalog.pg_relation_size('pgmask.vault') OPERATOR(pg_catalog.<) 256000000 THEN 2
            ELSE 3 END;
        vault_parts := 1 OPERATOR(pg_catalog.<<) (4 OPERATOR(pg_catalog.*) digits);
        FOR vault_part IN 0..vault_parts OPERATOR(pg_catalog.-) 1 LOOP
            SELECT s.lifted, s.left_alone INTO step FROM pgmask.remask_vault(vault_part, digits) AS s;
            COMMIT;
            lifted := lifted OPERATOR(pg_catalog.+) step.lifted;
            left_alone := left_alone OPERATOR(pg_catalog.+) step.left_alone;
            IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) (said OPERATOR(pg_catalog.+) say_every) THEN
                said := pg_catalog.clock_timestamp();
                RAISE NOTICE 'remask: part % of % of the vault, % rows lifted', vault_part, vault_parts, lifted;
            END IF;
        END LOOP;
        RETURN;
    END IF;
    FOREACH part IN ARRAY pgmask.remask_parts(relation) LOOP
        began := pg_catalog.clock_timestamp();
        lifted_here := 0;
        block := 0;
        COMMIT; -- each part begins a transaction of its own
        WHILE block IS NOT NULL LOOP
            SELECT s.next, s.lifted, s.left_alone, s.limited_by INTO step
            FROM pgmask.remask_blocks(part, columns, domain, block, batch_blocks) AS s;
            COMMIT;
            block := step.next;
            limited_by := coalesce(step.limited_by, limited_by);
            lifted_here := lifted_here OPERATOR(pg_catalog.+) step.lifted;
            left_alone := left_alone OPERATOR(pg_catalog.+) step.left_alone;
            IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) (said OPERATOR(pg_catalog.+) say_every)
               AND block IS NOT NULL THEN
                said := pg_catalog.clock_timestamp();
                PERFORM pgmask.remask_progress(part, began, block, lifted_here);
            END IF;
        END LOOP;
        -- Rows that others had locked, or moved meanwhile.
        moved := pg_catalog.clock_timestamp();
        LOOP
            blocks := pgmask.remask_left(part, columns, domain);
            COMMIT;
            EXIT WHEN pg_catalog.cardinality(blocks) OPERATOR(pg_catalog.=) 0;
            FOREACH block IN ARRAY blocks LOOP
                SELECT s.lifted INTO step FROM pgmask.remask_blocks(part, columns, domain, block, 1) AS s;
                COMMIT;
                IF step.lifted OPERATOR(pg_catalog.>) 0 THEN
                    lifted_here := lifted_here OPERATOR(pg_catalog.+) step.lifted;
                    moved := pg_catalog.clock_timestamp();
                END IF;
            END LOOP;
            IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) (moved OPERATOR(pg_catalog.+) longest) THEN
                RAISE EXCEPTION 'rows of % with older tokens are locked by others', part::pg_catalog.regclass
                    USING ERRCODE = 'lock_not_available',
                          HINT = 'End the transactions that hold them (pg_locks and pg_stat_activity show them) and call remask again.';
            END IF;
            PERFORM pg_catalog.pg_sleep(0.1);
        END LOOP;
        lifted := lifted OPERATOR(pg_catalog.+) lifted_here;
    END LOOP;
    -- A hash that such a role has put in is a guess of its own.
    IF limited_by IS NOT NULL THEN
        RAISE WARNING 'hashes without a key were left alone: role % may write into %, and has had as many as pgmask.guess_limit allows in this hour', limited_by::pg_catalog.regrole, relation
            USING HINT = 'If you know that all of these hashes come from an older pipeline, take its right to write there away until remask is through. Otherwise call remask again in another hour. A member of pgmask_unlimited masks without a limit: only who may learn every value should be one.';
    END IF;
END
$$;

COMMENT ON PROCEDURE pgmask.remask(regclass, text[], text, bigint, bigint, bigint) IS
    'lifts the tokens in a table to the generation in use, in batches that commit; may be stopped and called again';
COMMENT ON FUNCTION pgmask.remask_parts(regclass) IS 'the tables that hold a table''s rows, for pgmask.remask()';
COMMENT ON FUNCTION pgmask.wait_for_writers(regclass) IS 'waits for older writers, for pgmask.remask() and pgmask.reseal_quarantine()';
COMMENT ON FUNCTION pgmask.remask_progress(oid, timestamptz, bigint, bigint) IS
    'says how far pgmask.remask() is';

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

-- The owner of the schema that CREATE EXTENSION was given could take the extension away with it: pg_mask refuses that, in
-- each session that it is loaded in. So it is loaded before commands by which a schema goes, or is made to go with something else, and the
-- language that functions of pg_mask are in.
CREATE FUNCTION pgmask.watch_drops() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'watch_drops_wrapper';
CREATE EVENT TRIGGER pgmask_watch_drops ON ddl_command_start
    WHEN TAG IN ('DROP SCHEMA', 'DROP OWNED', 'DROP EXTENSION', 'ALTER EXTENSION', 'DROP LANGUAGE') EXECUTE FUNCTION pgmask.watch_drops();
ALTER EVENT TRIGGER pgmask_watch_drops ENABLE ALWAYS;

COMMENT ON FUNCTION pgmask.watch_drops() IS 'has pg_mask loaded, which lets superusers alone drop the extension';
COMMENT ON EVENT TRIGGER pgmask_watch_drops IS 'superusers alone drop pg_mask, not whoever owns the schema that it is in';

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

-- pg_mask/src/app_version.rs
CREATE FUNCTION pgmask."app_version_text"(
    "app_version" INT
) RETURNS TEXT
IMMUTABLE STRICT PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'app_version_text_wrapper';

-- pg_mask/src/audit.rs
CREATE FUNCTION pgmask."audit_asked"(
    "procedure" text
) RETURNS void
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'audit_asked_wrapper';

-- pg_mask/src/audit/verify.rs
CREATE FUNCTION pgmask."verify_audit"(
    "logged_id" bigint DEFAULT NULL,
    "logged_mac" text DEFAULT NULL
) RETURNS TABLE (
    "id" bigint,
    "problem" TEXT
)
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'verify_audit_wrapper';

-- pg_mask/src/current_mask.rs
CREATE FUNCTION pgmask."current_mask"(
    "token" text,
    "domain" text DEFAULT 'pii'
) RETURNS text
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'current_mask_wrapper';

CREATE FUNCTION pgmask."mask_generation"(
    "token" text
) RETURNS INT
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'mask_generation_wrapper';

-- pg_mask/src/guesses.rs
CREATE FUNCTION pgmask."guess_limit_is_shared"() RETURNS bool
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'guess_limit_is_shared_wrapper';

-- pg_mask/src/health.rs
CREATE FUNCTION pgmask."sample_older_tokens"(
    "generation" INT,
    "most" INT
) RETURNS TABLE (
    "looked_at" bigint,
    "older" bigint
)
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'sample_older_tokens_wrapper';

-- pg_mask/src/ingest.rs
CREATE FUNCTION pgmask."ingest_login_batch"(
    "message_ids" text[],
    "bodies" text[],
    "sent_at" timestamp with time zone[],
    "receive_counts" INT[]
) RETURNS TABLE (
    "inserted" bigint,
    "duplicate" bigint,
    "quarantined" bigint
)
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'ingest_login_batch_wrapper';

CREATE FUNCTION pgmask."ingest_login_batch_bytes"(
    "message_ids" text[],
    "bodies" bytea[],
    "sent_at" timestamp with time zone[],
    "receive_counts" INT[]
) RETURNS TABLE (
    "inserted" bigint,
    "duplicate" bigint,
    "quarantined" bigint
)
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'ingest_login_batch_bytes_wrapper';

CREATE FUNCTION pgmask."last_quarantined"() RETURNS INT[]
STRICT VOLATILE PARALLEL UNSAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'last_quarantined_wrapper';

CREATE FUNCTION pgmask."ingest_login"(
    "payload" jsonb,
    "create_date" date DEFAULT NULL
) RETURNS void
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'ingest_login_wrapper';

CREATE FUNCTION pgmask."try_login"(
    "payload" jsonb
) RETURNS TABLE (
    "sqlstate" TEXT,
    "message" TEXT,
    "detail" TEXT,
    "hint" TEXT,
    "context" TEXT
)
STRICT VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'try_login_wrapper';

-- pg_mask/src/ingest/replay.rs
CREATE FUNCTION pgmask."replay_quarantine"(
    "reason" text DEFAULT NULL
) RETURNS TABLE (
    "inserted" bigint,
    "kept" bigint
)
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'replay_quarantine_wrapper';

-- pg_mask/src/ingest/reseal.rs
CREATE FUNCTION pgmask."reseal_quarantine"(
    "most" INT DEFAULT 1000
) RETURNS INT
STRICT VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'reseal_quarantine_wrapper';

-- pg_mask/src/ingest/unseal.rs
CREATE FUNCTION pgmask."audit_unseal"(
    "id" bigint,
    "reason" text
) RETURNS void
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'audit_unseal_wrapper';

CREATE FUNCTION pgmask."unsealed"(
    "id" bigint
) RETURNS text
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'unsealed_wrapper';

-- pg_mask/src/key_functions.rs
CREATE FUNCTION pgmask."create_keyring"() RETURNS void
STRICT VOLATILE PARALLEL UNSAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'create_keyring_wrapper';

CREATE FUNCTION pgmask."keyring_is_in_data_directory"() RETURNS bool
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'keyring_is_in_data_directory_wrapper';

CREATE FUNCTION pgmask."key_status"() RETURNS TABLE (
    "kind" TEXT,
    "number" INT,
    "current" bool,
    "created_at" timestamp with time zone,
    "check_value" TEXT,
    "state" TEXT
)
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'key_status_wrapper';

-- pg_mask/src/mask_pii.rs
CREATE FUNCTION pgmask."mask_pii"(
    "value" text
) RETURNS text
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'mask_pii_text_wrapper';

CREATE FUNCTION pgmask."mask_pii"(
    "value" inet
) RETURNS text
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'mask_pii_inet_wrapper';

CREATE FUNCTION pgmask."mask_pii"(
    "value" uuid
) RETURNS text
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'mask_pii_uuid_wrapper';

CREATE FUNCTION pgmask."mask_pii"(
    "value" text,
    "domain" text
) RETURNS text
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'mask_pii_text_domain_wrapper';

CREATE FUNCTION pgmask."mask_pii"(
    "value" inet,
    "domain" text
) RETURNS text
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'mask_pii_inet_domain_wrapper';

CREATE FUNCTION pgmask."mask_pii"(
    "value" uuid,
    "domain" text
) RETURNS text
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'mask_pii_uuid_domain_wrapper';

CREATE FUNCTION pgmask."mask_network"(
    "value" inet,
    "v4_bits" INT DEFAULT 24,
    "v6_bits" INT DEFAULT 48
) RETURNS text
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'mask_network_wrapper';

-- pg_mask/src/refresh.rs
CREATE FUNCTION pgmask."refresh_stored"(
    "view" oid,
    "concurrently" bool
) RETURNS void
STRICT VOLATILE PARALLEL UNSAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'refresh_stored_wrapper';

-- pg_mask/src/remask.rs
CREATE FUNCTION pgmask."remask_begins"() RETURNS void
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'remask_begins_wrapper';

CREATE FUNCTION pgmask."remask_blocks"(
    "part" oid,
    "columns" text[],
    "domain" text,
    "first" bigint,
    "count" bigint
) RETURNS TABLE (
    "next" bigint,
    "lifted" bigint,
    "left_alone" bigint,
    "limited_by" oid
)
VOLATILE PARALLEL UNSAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'remask_blocks_wrapper';

CREATE FUNCTION pgmask."remask_left"(
    "part" oid,
    "columns" text[],
    "domain" text
) RETURNS bigint[]
VOLATILE PARALLEL UNSAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'remask_left_wrapper';

-- pg_mask/src/rotation.rs
CREATE FUNCTION pgmask."add_key"() RETURNS INT
STRICT VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'add_key_wrapper';

CREATE FUNCTION pgmask."rotate_key"() RETURNS INT
STRICT VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'rotate_key_wrapper';

CREATE FUNCTION pgmask."rotate_seal_key"() RETURNS INT
STRICT VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'rotate_seal_key_wrapper';

-- pg_mask/src/settings.rs
CREATE FUNCTION pgmask."ledger_days"() RETURNS INT
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'ledger_days_wrapper';

-- pg_mask/src/vault/forget.rs
CREATE FUNCTION pgmask."audit_forget"(
    "token" text,
    "reason" text
) RETURNS void
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'audit_forget_wrapper';

CREATE FUNCTION pgmask."forgotten"(
    "token" text
) RETURNS void
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'forgotten_wrapper';

-- pg_mask/src/vault/lift.rs
CREATE FUNCTION pgmask."remask_vault"(
    "part" INT,
    "digits" INT
) RETURNS TABLE (
    "lifted" bigint,
    "left_alone" bigint
)
STRICT VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'remask_vault_wrapper';

-- pg_mask/src/vault/recover.rs
CREATE FUNCTION pgmask."audit_recover"(
    "token" text,
    "reason" text
) RETURNS void
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'audit_recover_wrapper';

CREATE FUNCTION pgmask."recovered"(
    "token" text
) RETURNS text
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'recovered_wrapper';

-- What people call by a bare name is declared a second time, in the schema that CREATE EXTENSION was
-- given: the same C functions.
CREATE FUNCTION @extschema@.mask_pii(value text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'mask_pii_text_wrapper';
CREATE FUNCTION @extschema@.mask_pii(value text, domain text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'mask_pii_text_domain_wrapper';
CREATE FUNCTION @extschema@.mask_pii(value inet) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'mask_pii_inet_wrapper';
CREATE FUNCTION @extschema@.mask_pii(value inet, domain text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'mask_pii_inet_domain_wrapper';
CREATE FUNCTION @extschema@.mask_pii(value uuid) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'mask_pii_uuid_wrapper';
CREATE FUNCTION @extschema@.mask_pii(value uuid, domain text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'mask_pii_uuid_domain_wrapper';
CREATE FUNCTION @extschema@.mask_network(value inet, v4_bits integer DEFAULT 24, v6_bits integer DEFAULT 48)
    RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'mask_network_wrapper';
CREATE FUNCTION @extschema@.app_version_text(app_version integer) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'app_version_text_wrapper';
CREATE FUNCTION @extschema@.ingest_login(payload jsonb, create_date date DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'ingest_login_wrapper';

-- A function is everybody's when it is made. Ours are nobody's until a DBA grants them, as sql/ does.
REVOKE ALL ON FUNCTION
    @extschema@.mask_pii(text), @extschema@.mask_pii(inet), @extschema@.mask_pii(uuid),
    @extschema@.mask_pii(text, text), @extschema@.mask_pii(inet, text), @extschema@.mask_pii(uuid, text),
    @extschema@.mask_network(inet, integer, integer),
    @extschema@.app_version_text(integer), @extschema@.ingest_login(jsonb, date)
    FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA pgmask FROM PUBLIC;

-- Default privileges (ALTER DEFAULT PRIVILEGES) gave others rights as all of this was made: to read every new
-- table, for example. Those are for tables of people's own, and are taken back here.
DO $$
DECLARE
    given pg_catalog.record;
BEGIN
    FOR given IN
        SELECT made.what, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS other
        FROM (
            SELECT pg_catalog.format('%s %s', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::pg_catalog.regclass) AS what,
                   c.relowner AS owner, c.relacl AS acl, 'pg_catalog.pg_class'::pg_catalog.regclass AS class, c.oid AS id
            FROM pg_catalog.pg_class AS c
            UNION ALL
            SELECT pg_catalog.format('ROUTINE %s', p.oid::pg_catalog.regprocedure), p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid
            FROM pg_catalog.pg_proc AS p
            UNION ALL
            SELECT pg_catalog.format('SCHEMA %s', n.oid::pg_catalog.regnamespace), n.nspowner, n.nspacl, 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid
            FROM pg_catalog.pg_namespace AS n
        ) AS made, pg_catalog.aclexplode(made.acl) AS a
        WHERE a.grantee <> made.owner AND EXISTS (
            SELECT FROM pg_catalog.pg_depend AS d
            WHERE d.classid = made.class AND d.objid = made.id AND d.deptype = 'e' AND d.refobjid = (
                SELECT e.oid FROM pg_catalog.pg_extension AS e WHERE e.extname = 'pg_mask'))
        GROUP BY 1, 2
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', given.what, given.other);
    END LOOP;
END
$$;


COMMENT ON SCHEMA pgmask IS 'pg_mask: key check, ledger, quarantine, vault, audit';
COMMENT ON TABLE pgmask.ledger IS 'messages that were taken in: each has its effect once';
COMMENT ON COLUMN pgmask.ledger.message_id IS
    'the SQS message id; of an id that is no UUID, a hash as UUID version 8';
COMMENT ON COLUMN pgmask.ledger.slot IS
    'days from 2000-01-01 to the UTC day of the message''s SentTimestamp, modulo 32; 32 without a believable one';
COMMENT ON COLUMN pgmask.ledger.taken_day IS 'UTC day it was taken in';
COMMENT ON TABLE pgmask.ledger_slot IS 'when pgmask.maintain() reads a slot of the ledger again';
COMMENT ON COLUMN pgmask.ledger_slot.maintained_at IS 'when pgmask.maintain() last got through, in one row';
COMMENT ON COLUMN pgmask.ledger_slot.look_when_old IS
    'when this day is more than pgmask.ledger_days ago; NULL is at once';
COMMENT ON TABLE pgmask.quarantine IS 'messages that could not be taken in, sealed, and why';
COMMENT ON COLUMN pgmask.quarantine.sealed_body IS
    'XChaCha20-Poly1305 under the keyring''s seal key, bound to this row''s id, message id and times, and to the database';
COMMENT ON TABLE pgmask.database_id IS 'which database sealed bodies belong to; travels with dumps';
COMMENT ON VIEW pgmask.quarantine_summary IS 'quarantined messages by reason and UTC day';

COMMENT ON TABLE pgmask.audit IS
    'who opened or recovered what, or had it forgotten, when and why: a chain, which pgmask.verify_audit() looks at';
COMMENT ON COLUMN pgmask.audit.login_role IS 'session_user';
COMMENT ON COLUMN pgmask.audit.acting_role IS 'the role that called, after SET ROLE';
COMMENT ON COLUMN pgmask.audit.generation IS 'the mask generation whose key the MAC is made with';
COMMENT ON COLUMN pgmask.audit.mac IS 'MAC of this row and of the MAC of the row before; the server''s log has it, too';
COMMENT ON TABLE pgmask.audit_end IS 'the number and the MAC of the last row of pgmask.audit, and a MAC of these';

COMMENT ON FUNCTION pgmask.mask_pii(text) IS
    'token of a value: equal values, and equal IP addresses however written, give equal tokens';
COMMENT ON FUNCTION pgmask.mask_pii(inet) IS
    'token of an address, or of the network if the netmask is not full length';
COMMENT ON FUNCTION pgmask.mask_pii(uuid) IS 'token of a UUID, as of its text in lower case';
COMMENT ON FUNCTION pgmask.mask_pii(text, text) IS
    'token of a value in a domain: tokens of different domains can''t be linked';
COMMENT ON FUNCTION pgmask.mask_pii(inet, text) IS
    'token of a value in a domain: tokens of different domains can''t be linked';
COMMENT ON FUNCTION pgmask.mask_pii(uuid, text) IS
    'token of a value in a domain: tokens of different domains can''t be linked';
COMMENT ON FUNCTION pgmask.mask_network(inet, integer, integer) IS
    'token of the network around an address: of its first 24 bits in IPv4 and 48 in IPv6, unless told otherwise';
COMMENT ON FUNCTION pgmask.app_version_text(integer) IS 'version text of user_logins.app_version: 2003000 is 2.3.0';
COMMENT ON FUNCTION pgmask.ingest_login(jsonb, date) IS
    'masks one login event and inserts it; raises an error if it is no login';
COMMENT ON FUNCTION pgmask.try_login(jsonb) IS
    'whether the login table takes a login, and what the server says if it does not; nothing of it stays';
COMMENT ON FUNCTION pgmask.ingest_login_batch(text[], text[], timestamptz[], integer[]) IS
    'takes in message bodies, each message once; bad ones go to pgmask.quarantine';
COMMENT ON FUNCTION pgmask.ingest_login_batch_bytes(text[], bytea[], timestamptz[], integer[]) IS
    'ingest_login_batch for bodies that no text can be, such as those with a NUL';
COMMENT ON FUNCTION pgmask.last_quarantined() IS
    'places (from 1) of the messages of this session''s last batch that went to the quarantine, of the first 100 at most';
COMMENT ON FUNCTION pgmask.key_status() IS
    'the server''s keys and whether they are those that this database was masked with';
COMMENT ON FUNCTION pgmask.add_key() IS
    'adds a fresh generation to the keyring file, which waits to be put to use; returns its number';
COMMENT ON FUNCTION pgmask.rotate_key() IS
    'puts the next generation to use in this database, adding one if none waits; returns its number';
COMMENT ON FUNCTION pgmask.rotate_seal_key() IS
    'puts the next seal key to use in this database, adding one if none waits; returns its id';
COMMENT ON FUNCTION pgmask.keyring_is_in_data_directory() IS
    'whether the keyring lies in the data directory, where base backups take it along';
COMMENT ON FUNCTION pgmask.guess_limit_is_shared() IS
    'whether pgmask.guess_limit counts all sessions of a role together; each by itself otherwise';
COMMENT ON FUNCTION pgmask.reseal_quarantine(integer) IS
    'seals up to so many quarantined bodies anew that were sealed under an older key; returns how many';
COMMENT ON FUNCTION pgmask.current_mask(text, text) IS
    'a token of an older generation, or a SHA-256 in hex, lifted to the generation in use; anything else as it is';
COMMENT ON FUNCTION pgmask.mask_generation(text) IS
    'generation of a token; 0 for a SHA-256 in hex, NULL for what is neither';
COMMENT ON FUNCTION pgmask.remask_blocks(oid, text[], text, bigint, bigint) IS 'one batch of pgmask.remask()';
COMMENT ON FUNCTION pgmask.remask_begins() IS 'keeps the extension from being dropped, for pgmask.remask()';
COMMENT ON FUNCTION pgmask.remask_left(oid, text[], text) IS 'blocks with older tokens, for pgmask.remask()';
COMMENT ON FUNCTION pgmask.replay_quarantine(text) IS
    'takes in quarantined messages, all or those of one reason, that now pass; keeps the rest';
COMMENT ON PROCEDURE pgmask.unseal_quarantine(bigint, text, text) IS
    'the body of a quarantined message; who, when and why is kept in pgmask.audit and the server''s log';
COMMENT ON FUNCTION pgmask.audit_asked(text) IS 'refuses what is not the call of that procedure alone';
COMMENT ON FUNCTION pgmask.audit_unseal(bigint, text) IS 'the first step of pgmask.unseal_quarantine, and of no use alone';
COMMENT ON FUNCTION pgmask.unsealed(bigint) IS 'the second step of pgmask.unseal_quarantine, and of no use alone';
COMMENT ON FUNCTION pgmask.verify_audit(bigint, text) IS
    'what was changed in pgmask.audit, or is missing: no row if nothing; also compares a number and a MAC from the log';
COMMENT ON TABLE pgmask.vault IS 'the values that ingestion has masked while pgmask.vault was on, sealed';
COMMENT ON COLUMN pgmask.vault.sealed_value IS
    'XChaCha20-Poly1305 under the keyring''s seal key, bound to token, domain and database; NULL if it was forgotten';
COMMENT ON COLUMN pgmask.vault.kept_at IS 'when the value was masked first';
COMMENT ON PROCEDURE pgmask.recover_pii(text, text, text) IS
    'the value of a token; who, when and why is kept in pgmask.audit and the server''s log';
COMMENT ON PROCEDURE pgmask.forget(text, text) IS
    'erases the value of a token from the vault for good; who, when and why is kept in pgmask.audit and the server''s log';
COMMENT ON FUNCTION pgmask.audit_recover(text, text) IS 'the first step of pgmask.recover_pii, and of no use alone';
COMMENT ON FUNCTION pgmask.recovered(text) IS 'the second step of pgmask.recover_pii, and of no use alone';
COMMENT ON FUNCTION pgmask.audit_forget(text, text) IS 'the first step of pgmask.forget, and of no use alone';
COMMENT ON FUNCTION pgmask.forgotten(text) IS 'the second step of pgmask.forget, and of no use alone';
COMMENT ON FUNCTION pgmask.remask_vault(integer, integer) IS 'one batch of pgmask.remask(''pgmask.vault'')';
COMMENT ON FUNCTION pgmask.ledger_days() IS 'for how many days the ledger remembers messages: pgmask.ledger_days';
COMMENT ON FUNCTION pgmask.refresh_stored(oid, boolean) IS 'a part of logins.refresh_dashboards(): fills one stored result anew';
COMMENT ON FUNCTION pgmask.sample_older_tokens(integer, integer) IS
    'of the first rows of the login table, how many are looked at and how many have older tokens';
COMMENT ON FUNCTION pgmask.maintain() IS
    'forgets messages that were taken in more than pgmask.ledger_days ago: slots truncated, rows deleted';

COMMENT ON FUNCTION @extschema@.mask_pii(text) IS
    'token of a value: equal values, and equal IP addresses however written, give equal tokens';
COMMENT ON FUNCTION @extschema@.mask_pii(inet) IS
    'token of an address, or of the network if the netmask is not full length';
COMMENT ON FUNCTION @extschema@.mask_pii(uuid) IS 'token of a UUID, as of its text in lower case';
COMMENT ON FUNCTION @extschema@.mask_pii(text, text) IS
    'token of a value in a domain: tokens of different domains can''t be linked';
COMMENT ON FUNCTION @extschema@.mask_pii(inet, text) IS
    'token of a value in a domain: tokens of different domains can''t be linked';
COMMENT ON FUNCTION @extschema@.mask_pii(uuid, text) IS
    'token of a value in a domain: tokens of different domains can''t be linked';
COMMENT ON FUNCTION @extschema@.mask_network(inet, integer, integer) IS
    'token of the network around an address: of its first 24 bits in IPv4 and 48 in IPv6, unless told otherwise';
COMMENT ON FUNCTION @extschema@.app_version_text(integer) IS 'version text of user_logins.app_version: 2003000 is 2.3.0';
COMMENT ON FUNCTION @extschema@.ingest_login(jsonb, date) IS
    'masks one login event and inserts it; raises an error if it is no login';

-- Extension scripts run with warnings only, and a new keyring is worth more than that.
SET LOCAL client_min_messages = notice;
SELECT pgmask.create_keyring();
SET LOCAL client_min_messages = warning;
DROP FUNCTION pgmask.create_keyring();
