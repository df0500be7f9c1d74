-- Keeping the ledger in shape. DDL, so it is the DBA's to call (from cron, say), never ingest's.
CREATE FUNCTION pg_mask.maintain(OUT created integer, OUT dropped integer)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    days_ahead CONSTANT integer := 3;
    today CONSTANT date := (now() AT TIME ZONE 'UTC')::date;
    -- A session that has not called any function of the library yet knows no default of its settings.
    oldest CONSTANT date := today - coalesce(nullif(current_setting('pg_mask.ledger_days', true), '')::integer, 15);
    day date;
    partition name;
BEGIN
    created := 0;
    dropped := 0;
    -- Ingest waits while partitions come and go, which is milliseconds, and once a day.
    LOCK TABLE pg_mask.ledger IN ACCESS EXCLUSIVE MODE;

    -- Without one, messages would be taken in twice.
    SELECT c.relname INTO partition
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'pg_mask.ledger'::regclass
      AND NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisunique AND x.indisvalid);
    IF FOUND THEN
        RAISE EXCEPTION 'partition "%" of pg_mask.ledger has no unique index', partition
            USING HINT = 'Give it a primary key (message_id, sent_day), or detach it. pg_mask.maintain() makes partitions that have one.';
    END IF;

    FOR day IN SELECT today + ahead FROM generate_series(0, days_ahead) AS ahead LOOP
        partition := 'day_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(format('mask_ledger.%I', partition)) IS NOT NULL;
        -- With one day in it, the id alone is the key, and its index a fifth smaller.
        EXECUTE format('CREATE TABLE mask_ledger.%I (LIKE pg_mask.ledger, PRIMARY KEY (message_id))', partition);
        EXECUTE format(
            'WITH moved AS (DELETE FROM pg_mask.ledger_default WHERE sent_day = %L RETURNING *)
             INSERT INTO mask_ledger.%I SELECT * FROM moved', day, partition);
        EXECUTE format(
            'ALTER TABLE pg_mask.ledger ATTACH PARTITION mask_ledger.%I FOR VALUES FROM (%L) TO (%L)',
            partition, day, day + 1);
        created := created + 1;
    END LOOP;

    FOR partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'pg_mask.ledger'::regclass
          AND c.relnamespace = 'mask_ledger'::regnamespace AND to_date(substr(c.relname, 5), 'YYYYMMDD') < oldest
    LOOP
        EXECUTE format('DROP TABLE mask_ledger.%I', partition);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM pg_mask.ledger_default WHERE taken_day < oldest;
END
$$;
