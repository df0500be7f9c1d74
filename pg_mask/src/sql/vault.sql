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
