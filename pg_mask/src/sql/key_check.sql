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
