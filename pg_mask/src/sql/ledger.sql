-- Keeping the ledger in shape. DDL, so it is the DBA's to call (from cron, say), never ingest's.
--
-- Ingest waits while a partition comes or goes, and that waits for whoever reads the ledger: five
-- seconds at most, and only when there is something to do.
CREATE FUNCTION pgmask.maintain(OUT created integer, OUT dropped integer)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp SET "DateStyle" = 'ISO' SET lock_timeout = '5s' AS $$
DECLARE
    days_ahead CONSTANT integer := 3;
    today CONSTANT date := (now() AT TIME ZONE 'UTC')::date;
    oldest CONSTANT date := today - pgmask.ledger_days();
    day date;
    partition name;
    missing date[];
    old name[];
BEGIN
    created := 0;
    dropped := 0;
    -- Without such a key, messages would be taken in twice.
    SELECT c.relname INTO partition
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'pgmask.ledger'::regclass AND NOT EXISTS (
        SELECT FROM pg_index x
        WHERE x.indrelid = c.oid AND x.indisunique AND x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL
          AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid
              AND a.attnum = ANY (x.indkey) AND a.attname NOT IN ('message_id', 'sent_day')));
    IF FOUND THEN
        RAISE EXCEPTION 'partition "%" of pgmask.ledger has no unique index', partition
            USING HINT = 'Give it a primary key (message_id, sent_day), or detach it. pgmask.maintain() makes partitions that have one.';
    END IF;

    -- Ours are those with the name and the bounds of a day; others are left alone.
    WITH ours AS (
        SELECT c.relname, to_date(substr(c.relname, 5), 'YYYYMMDD') AS d
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'pgmask.ledger'::regclass AND c.relnamespace = 'mask_ledger'::regnamespace
          AND pg_get_expr(c.relpartbound, c.oid) ~ '^FOR VALUES FROM \(''\d{4}-\d\d-\d\d''\) TO '
          AND c.relname = 'day_' || translate(substr(pg_get_expr(c.relpartbound, c.oid), 19, 10), '-', '')
          AND pg_get_expr(c.relpartbound, c.oid) = format('FOR VALUES FROM (%L) TO (%L)',
              substr(pg_get_expr(c.relpartbound, c.oid), 19, 10)::date,
              substr(pg_get_expr(c.relpartbound, c.oid), 19, 10)::date + 1)
    )
    SELECT (SELECT array_agg(today + ahead ORDER BY ahead) FROM generate_series(0, days_ahead) AS ahead
            WHERE today + ahead NOT IN (SELECT d FROM ours)),
           (SELECT array_agg(relname) FROM ours WHERE d < oldest)
    INTO missing, old;

    IF missing IS NOT NULL OR old IS NOT NULL THEN
        LOCK TABLE pgmask.ledger IN ACCESS EXCLUSIVE MODE;
    END IF;
    FOREACH day IN ARRAY coalesce(missing, '{}') LOOP
        partition := 'day_' || to_char(day, 'YYYYMMDD');
        BEGIN
            -- With one day in it, the id alone is the key, and its index a fifth smaller.
            EXECUTE format('CREATE TABLE mask_ledger.%I (LIKE pgmask.ledger, PRIMARY KEY (message_id))', partition);
            EXECUTE format(
                'WITH moved AS (DELETE FROM pgmask.ledger_default WHERE sent_day = %L RETURNING *)
                 INSERT INTO mask_ledger.%I SELECT * FROM moved', day, partition);
            EXECUTE format(
                'ALTER TABLE pgmask.ledger ATTACH PARTITION mask_ledger.%I FOR VALUES FROM (%L) TO (%L)',
                partition, day, day + 1);
            created := created + 1;
        EXCEPTION
            -- Somebody made a partition for that day, or another maintain() did just now.
            WHEN invalid_object_definition OR duplicate_table THEN NULL;
        END;
    END LOOP;
    FOREACH partition IN ARRAY coalesce(old, '{}') LOOP
        EXECUTE format('DROP TABLE IF EXISTS mask_ledger.%I', partition);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM pgmask.ledger_default WHERE taken_day < oldest;
END
$$;
