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
