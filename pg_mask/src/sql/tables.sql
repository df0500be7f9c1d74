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
SELECT pg_catalog.pg_extension_config_dump('pgmask.quarantine', '');
SELECT pg_catalog.pg_extension_config_dump('pgmask.quarantine_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('pgmask.audit', '');
SELECT pg_catalog.pg_extension_config_dump('pgmask.audit_id_seq', '');
