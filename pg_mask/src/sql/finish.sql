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
