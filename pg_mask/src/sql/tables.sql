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
