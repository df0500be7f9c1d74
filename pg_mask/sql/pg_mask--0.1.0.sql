-- What CREATE EXTENSION pg_mask VERSION '0.1.0' makes. Generated from pg_mask/src: make install-script
\echo Use "CREATE EXTENSION pg_mask" to load this file. \quit

-- Whatever others may have put into the schema that CREATE EXTENSION was given, names mean PostgreSQL's own.
SET LOCAL search_path TO pg_catalog, pg_temp;

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
    check_value text NOT NULL,
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

-- The tables, and which of their rows a dump takes along.
CREATE TABLE pgmask.ledger (
    message_id uuid NOT NULL,
    sent_day date NOT NULL,
    taken_day date NOT NULL
) PARTITION BY RANGE (sent_day);
-- The key is each partition's own. A day is in one partition, so that is as good as one for all; and
-- a dump restores partitions with their keys, which fails where the whole has one already. The id
-- comes first: it alone nearly always settles a comparison.
CREATE TABLE pgmask.ledger_default PARTITION OF pgmask.ledger (PRIMARY KEY (message_id, sent_day)) DEFAULT;
-- The days' partitions come and go, so they are no part of the extension and a dump takes them along
-- as it does any table; but none from a schema whose name starts with "pg_".
CREATE SCHEMA mask_ledger;

CREATE TABLE pgmask.quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id text NOT NULL,
    sent_at timestamptz,
    receive_count integer,
    reason text NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    sealed_body bytea NOT NULL
);

CREATE VIEW pgmask.quarantine_summary AS
    SELECT reason, (quarantined_at AT TIME ZONE 'UTC')::date AS day, count(*) AS messages
    FROM pgmask.quarantine
    GROUP BY 1, 2
    ORDER BY 3 DESC, 1, 2;

-- Who was shown what that was never meant to be shown, and why.
CREATE TABLE pgmask.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    done_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    login_role text NOT NULL,
    acting_role text NOT NULL,
    action text NOT NULL,
    quarantine_id bigint,
    reason text NOT NULL
);

-- All of it belongs in a dump: messages are counted once, nothing is lost.
SELECT pg_catalog.pg_extension_config_dump('pgmask.ledger_default', '');
SELECT pg_catalog.pg_extension_config_dump('pgmask.quarantine', '');
SELECT pg_catalog.pg_extension_config_dump('pgmask.quarantine_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('pgmask.audit', '');
SELECT pg_catalog.pg_extension_config_dump('pgmask.audit_id_seq', '');

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

-- pg_mask/src/app_version.rs
CREATE FUNCTION pgmask."app_version_text"(
    "app_version" INT
) RETURNS TEXT
IMMUTABLE STRICT PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'app_version_text_wrapper';

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

CREATE FUNCTION pgmask."ingest_login"(
    "payload" jsonb,
    "create_date" date DEFAULT NULL
) RETURNS void
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'ingest_login_wrapper';

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

-- pg_mask/src/ingest/unseal.rs
CREATE FUNCTION pgmask."unseal_quarantine"(
    "id" bigint,
    "reason" text
) RETURNS text
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'unseal_quarantine_wrapper';

-- pg_mask/src/key_functions.rs
CREATE FUNCTION pgmask."create_keyring"() RETURNS void
STRICT VOLATILE PARALLEL UNSAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'create_keyring_wrapper';

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
    "value" text,
    "domain" text
) RETURNS text
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'mask_pii_domain_wrapper';

CREATE FUNCTION pgmask."mask_pii"(
    "value" inet
) RETURNS text
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'mask_pii_inet_wrapper';

-- pg_mask/src/settings.rs
CREATE FUNCTION pgmask."ledger_days"() RETURNS INT
STRICT STABLE PARALLEL SAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'ledger_days_wrapper';

-- What people call by a bare name is declared a second time, in the schema that CREATE EXTENSION was
-- given: the same C functions.
CREATE FUNCTION @extschema@.mask_pii(value text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'mask_pii_text_wrapper';
CREATE FUNCTION @extschema@.mask_pii(value text, domain text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'mask_pii_domain_wrapper';
CREATE FUNCTION @extschema@.mask_pii(value inet) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'mask_pii_inet_wrapper';
CREATE FUNCTION @extschema@.app_version_text(app_version integer) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'app_version_text_wrapper';
CREATE FUNCTION @extschema@.ingest_login(payload jsonb, create_date date DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'ingest_login_wrapper';

-- A function is everybody's when it is made. Ours are nobody's until a DBA grants them, as sql/ does.
REVOKE ALL ON FUNCTION
    @extschema@.mask_pii(text), @extschema@.mask_pii(text, text), @extschema@.mask_pii(inet),
    @extschema@.app_version_text(integer), @extschema@.ingest_login(jsonb, date)
    FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgmask FROM PUBLIC;

COMMENT ON SCHEMA pgmask IS 'pg_mask: key check, ledger, quarantine, audit';
COMMENT ON SCHEMA mask_ledger IS 'pg_mask: the partitions of pgmask.ledger, a day each';
COMMENT ON TABLE pgmask.ledger IS 'messages that were taken in: each has its effect once';
COMMENT ON COLUMN pgmask.ledger.message_id IS
    'the SQS message id; of an id that is no UUID, a hash as UUID version 8';
COMMENT ON COLUMN pgmask.ledger.sent_day IS 'UTC day of the message''s SentTimestamp, as it came';
COMMENT ON COLUMN pgmask.ledger.taken_day IS 'UTC day it was taken in';
COMMENT ON TABLE pgmask.quarantine IS 'messages that could not be taken in, sealed, and why';
COMMENT ON COLUMN pgmask.quarantine.sealed_body IS
    'XChaCha20-Poly1305 under the keyring''s seal key, bound to this row''s id and message id';
COMMENT ON VIEW pgmask.quarantine_summary IS 'quarantined messages by reason and UTC day';

COMMENT ON TABLE pgmask.audit IS 'who opened which quarantined message, when and why';
COMMENT ON COLUMN pgmask.audit.login_role IS 'session_user';
COMMENT ON COLUMN pgmask.audit.acting_role IS 'the role that called, after SET ROLE';

COMMENT ON FUNCTION pgmask.mask_pii(text) IS
    'token of a value: equal values, and equal IP addresses however written, give equal tokens';
COMMENT ON FUNCTION pgmask.mask_pii(inet) IS
    'token of an address, or of the network if the netmask is not full length';
COMMENT ON FUNCTION pgmask.mask_pii(text, text) IS
    'token of a value in a domain: tokens of different domains can''t be linked';
COMMENT ON FUNCTION pgmask.app_version_text(integer) IS 'version text of user_logins.app_version: 2003000 is 2.3.0';
COMMENT ON FUNCTION pgmask.ingest_login(jsonb, date) IS
    'masks one login event and inserts it; raises an error if it is no login';
COMMENT ON FUNCTION pgmask.ingest_login_batch(text[], text[], timestamptz[], integer[]) IS
    'takes in message bodies, each message once; bad ones go to pgmask.quarantine';
COMMENT ON FUNCTION pgmask.key_status() IS
    'the server''s keys and whether they are those that this database was masked with';
COMMENT ON FUNCTION pgmask.replay_quarantine(text) IS
    'takes in quarantined messages, all or those of one reason, that now pass; keeps the rest';
COMMENT ON FUNCTION pgmask.unseal_quarantine(bigint, text) IS
    'the body of a quarantined message; who, when and why is kept in pgmask.audit and the server''s log';
COMMENT ON FUNCTION pgmask.ledger_days() IS 'for how many days the ledger remembers messages: pgmask.ledger_days';
COMMENT ON FUNCTION pgmask.maintain() IS
    'makes ledger partitions for the days ahead and drops those older than pgmask.ledger_days';

COMMENT ON FUNCTION @extschema@.mask_pii(text) IS
    'token of a value: equal values, and equal IP addresses however written, give equal tokens';
COMMENT ON FUNCTION @extschema@.mask_pii(inet) IS
    'token of an address, or of the network if the netmask is not full length';
COMMENT ON FUNCTION @extschema@.mask_pii(text, text) IS
    'token of a value in a domain: tokens of different domains can''t be linked';
COMMENT ON FUNCTION @extschema@.app_version_text(integer) IS 'version text of user_logins.app_version: 2003000 is 2.3.0';
COMMENT ON FUNCTION @extschema@.ingest_login(jsonb, date) IS
    'masks one login event and inserts it; raises an error if it is no login';

-- Extension scripts run with warnings only, and a new keyring is worth more than that.
SET LOCAL client_min_messages = notice;
SELECT pgmask.create_keyring();
SET LOCAL client_min_messages = warning;
DROP FUNCTION pgmask.create_keyring();
