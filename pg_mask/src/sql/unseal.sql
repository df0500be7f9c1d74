-- Opening a quarantined message. The procedure acts as its caller, so that the audit names who really asked,
-- and has no settings of its own, so that it may commit: every name in it is qualified. It commits first what the
-- arguments of the call have begun: who asks next would have to wait for that, too.
CREATE PROCEDURE pgmask.unseal_quarantine(id bigint, reason text, INOUT body text DEFAULT NULL)
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgmask.audit_asked('unseal_quarantine');
    COMMIT;
    PERFORM pgmask.audit_unseal(id, reason);
    COMMIT;
    body := pgmask.unsealed(id);
END
$$;
