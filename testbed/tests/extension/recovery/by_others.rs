//! Code of others that runs in the session of who may recover values gets none, and asks for none in their name.

use super::{IP, audited, login, recover, server, take_in, token_of};
use crate::common::{count, message};
use testbed::guardian::wait_until;

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

/// What the arguments of the call have begun is done as the procedure commits, as if the procedure itself did it: it could
/// write a second row in the recoverer's name, for a token that they had never asked for, and have everybody who asks next
/// wait for it. So it is committed first, by itself.
#[tokio::test]
async fn what_a_call_has_begun_is_done_before_and_by_itself() {
    let (cluster, admin, recoverer) = server("vault_deferred", &[]).await;
    take_in(&admin, &[login(IP, "d"), login("203.0.113.8", "d")]).await;
    let (asked, other) = (token_of(&admin, IP).await, token_of(&admin, "203.0.113.8").await);
    admin
        .batch_execute(
            "CREATE ROLE mallory LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC; GRANT USAGE ON SCHEMA pgmask TO mallory;
             CREATE ROLE asks_next LOGIN IN ROLE pgmask_recoverer",
        )
        .await
        .unwrap();
    let mallory = cluster.connect_as("mallory", "vault_deferred").await.unwrap();
    mallory
        .batch_execute(&format!(
            "CREATE FUNCTION tries() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                 BEGIN PERFORM pgmask.audit_recover('{other}', 'forged'); EXCEPTION WHEN OTHERS THEN NULL; END;
                 PERFORM pg_advisory_xact_lock(7); END $$;
             CREATE FUNCTION forges(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
                 IF current_setting('trap.is_set', true) IS DISTINCT FROM 'yes' THEN RETURN 1; END IF;
                 PERFORM public.tries(); RETURN 2 + n; END $$;
             CREATE TABLE trap (n int, EXCLUDE USING btree (forges(n) WITH =) DEFERRABLE INITIALLY DEFERRED);
             CREATE TABLE row (n int); INSERT INTO row VALUES (1); GRANT ALL ON trap, row TO PUBLIC;
             CREATE FUNCTION because(command text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM set_config('trap.is_set', '', false); EXECUTE command;
                 PERFORM set_config('trap.is_set', 'yes', false); RETURN 'ticket'; END $$"
        ))
        .await
        .unwrap();
    let next = cluster.connect_as("asks_next", "vault_deferred").await.unwrap();
    let mut rows = 0;
    for begun in [
        "INSERT INTO public.trap VALUES (1), (2)",
        "DECLARE held CURSOR WITH HOLD FOR SELECT public.forges(n) FROM public.row",
    ] {
        admin.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
        let sql = format!("CALL pgmask.recover_pii('{asked}', because('{begun}'))");
        let call = recoverer.query_one(&sql, &[]);
        let meanwhile = async {
            let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
            wait_until("it waits", || async { count(&admin, waits).await == 1 }).await.unwrap();
            assert_eq!(recover(&next, &asked, "next").await.unwrap(), IP, "{begun}");
            admin.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
        };
        let (row, ()) = tokio::join!(call, meanwhile);
        assert_eq!(row.unwrap().get::<_, &str>(0), IP);
        rows += 2;
        let audited = audited(&admin).await;
        assert_eq!(audited.len(), rows, "{begun}");
        assert!(!audited.iter().any(|row| row.contains("forged")), "{begun}: {audited:?}");
        recoverer.batch_execute("CLOSE ALL").await.unwrap();
    }
}
