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
