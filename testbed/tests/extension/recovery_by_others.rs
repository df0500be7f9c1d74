//! Code of others that runs in the session of who may recover values gets none, and asks for none in their name.

use super::recovery::{IP, audited, login, recover, server, take_in, token_of};
use crate::common::{count, message};

/// Code of others that runs in the session of who may ask gets nothing, and asks for nothing in their name.
#[tokio::test]
async fn nobody_asks_in_the_name_of_another() {
    let (cluster, admin, recoverer) = server("vault_names", &[]).await;
    take_in(&admin, &[login(IP, "d")]).await;
    let token = token_of(&admin, IP).await;
    admin
        .batch_execute("CREATE ROLE mallory LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC; GRANT USAGE ON SCHEMA pgmask TO mallory")
        .await
        .unwrap();
    let mallory = cluster.connect_as("mallory", "vault_names").await.unwrap();
    mallory
        .batch_execute(&format!(
            "CREATE TABLE loot (value text); GRANT INSERT ON loot TO PUBLIC;
             CREATE FUNCTION steal() RETURNS text LANGUAGE plpgsql AS $$
             DECLARE step text; value text;
             BEGIN
                 FOREACH step IN ARRAY ARRAY['CALL pgmask.recover_pii(''{token}'', ''x'', NULL)', 'CALL pgmask.forget(''{token}'', ''x'')',
                     'SELECT pgmask.audit_recover(''{token}'', ''x'')::text', 'SELECT pgmask.recovered(''{token}'')',
                     'SELECT pgmask.audit_forget(''{token}'', ''x'')::text', 'SELECT pgmask.forgotten(''{token}'')::text'] LOOP
                     BEGIN
                         EXECUTE step INTO value;
                         INSERT INTO loot VALUES (coalesce(value, step));
                     EXCEPTION WHEN OTHERS THEN NULL;
                     END;
                 END LOOP;
                 RETURN 'harmless';
             END $$;
             CREATE VIEW harmless AS SELECT steal() AS x; GRANT SELECT ON harmless TO PUBLIC"
        ))
        .await
        .unwrap();
    for session in [&recoverer, &admin] {
        session.batch_execute("SELECT steal(); TABLE harmless; BEGIN; SELECT steal(); COMMIT").await.unwrap();
        // In an argument of the call itself: written down is what was called.
        let other = "CALL pgmask.recover_pii(steal() || '', 'x')";
        assert!(message(&session.query(other, &[]).await.unwrap_err()).starts_with("22023 "));
    }
    let sql = format!("CALL pgmask.recover_pii('{token}', steal())");
    assert_eq!(recoverer.query_one(&sql, &[]).await.unwrap().get::<_, &str>(0), IP);
    assert_eq!(count(&admin, "SELECT count(*) FROM loot").await, 0);
    assert_eq!(audited(&admin).await, [format!("recovers recovers recover_pii {} harmless", &token[..6])]);
}

/// What waits for the commit runs in it as if the procedure itself did: it could write a second row in the recoverer's name,
/// for a token that they had never asked for, and hold up everybody who asks meanwhile. So nothing may be waiting.
#[tokio::test]
async fn nothing_of_others_runs_as_the_procedure_commits() {
    let (cluster, admin, recoverer) = server("vault_deferred", &[]).await;
    take_in(&admin, &[login(IP, "d"), login("203.0.113.8", "d")]).await;
    let (asked, other) = (token_of(&admin, IP).await, token_of(&admin, "203.0.113.8").await);
    admin
        .batch_execute("CREATE ROLE mallory LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC; GRANT USAGE ON SCHEMA pgmask TO mallory")
        .await
        .unwrap();
    let mallory = cluster.connect_as("mallory", "vault_deferred").await.unwrap();
    mallory
        .batch_execute(&format!(
            "CREATE SEQUENCE ran; GRANT ALL ON ran TO PUBLIC;
             CREATE FUNCTION forges(n int) RETURNS int LANGUAGE sql IMMUTABLE AS $$
                 SELECT CASE WHEN current_setting('trap.is_set', true) IS DISTINCT FROM 'yes' THEN 1
                     WHEN nextval('public.ran') > 0 AND pgmask.audit_recover('{other}', 'forged') IS NULL THEN 2 ELSE 3 END $$;
             CREATE TABLE trap (n int, EXCLUDE USING btree (forges(n) WITH =) DEFERRABLE INITIALLY DEFERRED);
             CREATE TABLE row (n int); INSERT INTO row VALUES (1); GRANT ALL ON trap, row TO PUBLIC;
             CREATE FUNCTION because(command text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM set_config('trap.is_set', '', false); EXECUTE command;
                 PERFORM set_config('trap.is_set', 'yes', false); RETURN 'ticket'; END $$"
        ))
        .await
        .unwrap();
    for waits in [
        "INSERT INTO public.trap VALUES (1), (2)",
        "DECLARE held CURSOR WITH HOLD FOR SELECT public.forges(n) FROM public.row",
    ] {
        let call = format!("CALL pgmask.recover_pii('{asked}', because('{waits}'))");
        let refused = message(&recoverer.query(&call, &[]).await.unwrap_err());
        assert!(refused.contains("recover_pii"), "{waits}: {refused}");
        assert_eq!(count(&admin, "SELECT is_called::int::bigint FROM ran").await, 0, "{waits}");
        assert_eq!(audited(&admin).await, [""; 0]);
    }
    // What is held already waits for nothing, and what a call is given may be computed.
    let held = "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1; COMMIT; SET trap.is_set = ''";
    recoverer.batch_execute(held).await.unwrap();
    let computed = format!("CALL pgmask.recover_pii(pgmask.mask_pii('{IP}'), 'ticket')");
    admin.batch_execute(&computed).await.unwrap();
    assert_eq!(recover(&recoverer, &asked, "ticket").await.unwrap(), IP);
    assert_eq!(audited(&admin).await.len(), 2);
}
