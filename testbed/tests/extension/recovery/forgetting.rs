//! What is forgotten is gone.

use super::{IP, audited, forget, kept, login, recover, server, take_in, token_of};
use crate::common::{commits_wait, count, message, nobody_waits, texts};
use testbed::guardian::wait_until;

#[tokio::test]
async fn what_is_forgotten_is_gone_for_good() {
    let (cluster, admin, recoverer) = server("vault_forgotten", &[]).await;
    let bodies = [login(IP, "keeps"), login("198.51.100.1", "forgets")];
    take_in(&admin, &bodies).await;
    let token = token_of(&admin, IP).await;
    forget(&recoverer, &token, "erasure request 7").await.unwrap();
    let line = format!("has the value of token {token} forgotten; reason: erasure request 7; audit 1, MAC ");
    assert!(cluster.log().contains(&line));
    for again in [recover(&recoverer, &token, "x").await.map(|_| ()), forget(&recoverer, &token, "x").await] {
        assert!(message(&again.unwrap_err()).starts_with("P0002 "));
    }
    assert_eq!(audited(&admin).await.len(), 3, "that there is no value is an answer, too");
    assert_eq!(recover(&recoverer, &token_of(&admin, "keeps").await, "x").await.unwrap(), "keeps");
    // The rows keep their tokens, and the next login with the value does not bring it back.
    let rows = format!("SELECT count(*) FROM user_logins WHERE masked_ip = '{token}'");
    assert_eq!(count(&admin, &rows).await, 1);
    take_in(&admin, &bodies).await;
    assert_eq!(count(&admin, &rows).await, 2);
    assert!(message(&recover(&recoverer, &token, "x").await.unwrap_err()).starts_with("P0002 "));

    // Nor does a rotation: before the vault is lifted, and after.
    admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    let second = token_of(&admin, IP).await;
    assert!(second.starts_with("m2_"));
    take_in(&admin, &bodies).await;
    assert_eq!(kept(&admin).await, 4);
    for token in [&token, &second] {
        assert!(message(&recover(&recoverer, token, "x").await.unwrap_err()).starts_with("P0002 "));
    }
    // By a token of a newer generation than the vault has, and of an older one.
    forget(&recoverer, &token_of(&admin, "forgets").await, "newer").await.unwrap();
    assert_eq!(kept(&admin).await, 5, "it is marked under its token in use, too, until the vault is lifted");
    admin.batch_execute("CALL pgmask.remask('pgmask.vault')").await.unwrap();
    let keeps_1 =
        texts(&admin, "SELECT masked_device_id FROM user_logins WHERE masked_device_id LIKE 'm1%'").await;
    for older in keeps_1 {
        let _ = forget(&recoverer, &older, "older").await;
    }
    take_in(&admin, &bodies).await;
    assert_eq!(kept(&admin).await, 4);
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.vault WHERE token LIKE 'm2\\_%'").await, 4);
    let left = "SELECT count(*) FROM pgmask.vault WHERE sealed_value IS NOT NULL";
    assert_eq!(count(&admin, left).await, 1);
    assert_eq!(
        recover(&recoverer, &token_of(&admin, "198.51.100.1").await, "x").await.unwrap(),
        "198.51.100.1"
    );
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.verify_audit()").await, 0);

    // A plain hash is a guess: it may be asked for, within the limit and on the record, but not tried by forgetting.
    let hash = &texts(&admin, "SELECT encode(sha256('198.51.100.1'), 'hex')").await[0];
    let error = message(&forget(&recoverer, hash, "x").await.unwrap_err());
    assert!(error.starts_with("22023 what was given is no token"), "{error}");
    assert_eq!(recover(&recoverer, hash, "an old table").await.unwrap(), "198.51.100.1");
    let said = texts(&admin, "SELECT token FROM pgmask.audit ORDER BY id DESC LIMIT 1").await;
    assert_eq!(
        said,
        [token_of(&admin, "198.51.100.1").await],
        "the hash gives away the address, and is not kept"
    );
    assert!(!cluster.log().lines().any(|line| line.contains("pg_mask: ") && line.contains(hash.as_str())));
    forget(&admin, hash, "a superuser may").await.unwrap();
    assert_eq!(count(&admin, left).await, 0);
}

/// A transaction that began before a rotation, or a restore, may leave two rows of one value.
#[tokio::test]
async fn where_two_rows_of_a_value_meet_the_forgotten_one_counts() {
    let (cluster, admin, recoverer) = server("vault_two_rows", &[]).await;
    let bodies = [login("192.0.2.1", "a"), login("192.0.2.2", "b"), login("192.0.2.3", "c")];
    take_in(&admin, &bodies).await;
    let first = [
        token_of(&admin, "192.0.2.1").await,
        token_of(&admin, "192.0.2.2").await,
        token_of(&admin, "192.0.2.3").await,
    ];
    admin
        .batch_execute(
            "CREATE TABLE older AS TABLE pgmask.vault; SELECT pgmask.rotate_key(); TRUNCATE pgmask.vault",
        )
        .await
        .unwrap();
    let fresh = cluster.connect("vault_two_rows").await.unwrap();
    take_in(&fresh, &bodies).await;
    // The first is forgotten in its newer row, the second in its older one, the third in neither.
    let meet = format!(
        "INSERT INTO pgmask.vault TABLE older; UPDATE pgmask.vault SET sealed_value = NULL WHERE token IN (mask_pii('192.0.2.1'), '{}')",
        first[1]
    );
    admin.batch_execute(&meet).await.unwrap();
    assert_eq!(kept(&admin).await, 12);
    let row = admin.query_one("CALL pgmask.remask('pgmask.vault')", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (6, 0));
    assert_eq!(kept(&admin).await, 6);
    for (token, is_there) in first.iter().zip([false, false, true]) {
        assert_eq!(recover(&recoverer, token, "x").await.is_ok(), is_there, "{token}");
    }
    // Two older rows of one value: the same, where both are lifted at once.
    admin
        .batch_execute("CREATE TABLE newer AS TABLE pgmask.vault; SELECT pgmask.rotate_key()")
        .await
        .unwrap();
    let live = "UPDATE older SET sealed_value = NULL WHERE token = $1";
    admin.execute(live, &[&first[2]]).await.unwrap();
    admin.batch_execute("TRUNCATE pgmask.vault; INSERT INTO pgmask.vault TABLE newer; INSERT INTO pgmask.vault TABLE older").await.unwrap();
    admin.query_one("CALL pgmask.remask('pgmask.vault')", &[]).await.unwrap();
    assert_eq!(kept(&admin).await, 6);
    for token in &first {
        assert!(
            message(&recover(&recoverer, token, "x").await.unwrap_err()).starts_with("P0002 "),
            "{token}"
        );
    }
    assert_eq!(recover(&recoverer, &token_of(&admin, "a").await, "x").await.unwrap(), "a");
    // To forget erases all rows of a value.
    admin.batch_execute("SELECT pgmask.rotate_key(); TRUNCATE pgmask.vault; INSERT INTO pgmask.vault TABLE newer; INSERT INTO pgmask.vault TABLE older").await.unwrap();
    forget(&recoverer, &token_of(&admin, "b").await, "all of it").await.unwrap();
    let left = "SELECT count(*) FROM pgmask.vault WHERE sealed_value IS NOT NULL AND pgmask.current_mask(token) = mask_pii('b')";
    assert_eq!(count(&admin, left).await, 0);
    assert_eq!(count(&admin, &left.replace("IS NOT NULL", "IS NULL")).await, 3);
}

/// Who has begun to write before a rotation puts the value in, or lifts it, under keys of before: it came back afterwards.
#[tokio::test]
async fn what_others_are_about_to_write_is_forgotten_too() {
    let (cluster, admin, recoverer) = server("vault_waits", &[]).await;
    admin.batch_execute("CREATE ROLE ops LOGIN IN ROLE pgmask_operator").await.unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'recovers' AND state = 'active'
                 AND (wait_event = 'PgSleep' OR wait_event_type = 'Lock')";
    let ingest = format!(
        "SELECT FROM pgmask.ingest_login_batch('{{a}}', ARRAY['{}'], ARRAY[now()], '{{1}}')",
        login(IP, "d")
    );
    // An ingester leaves a transaction open over the rotation; an operator seals rows anew, and lifts them once the key has changed.
    for (role, value, begins, rotated, ends) in [
        ("pgmask_forwarder", IP, &*ingest, true, ""),
        (
            "ops",
            "198.51.100.9",
            "SELECT pgmask.remask_vault(0, 0)",
            false,
            "SELECT pgmask.remask_vault(0, 0)",
        ),
    ] {
        if !rotated {
            take_in(&admin, &[login(value, "e")]).await;
            admin.batch_execute("SELECT pgmask.rotate_seal_key()").await.unwrap();
        }
        let other = cluster.connect_as(role, "vault_waits").await.unwrap();
        other.batch_execute(&format!("BEGIN; {begins}")).await.unwrap();
        if rotated {
            admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
            take_in(&admin, &[login(value, "d")]).await;
        }
        let token = token_of(&admin, value).await;
        let forgetting = tokio::spawn({
            let (client, token) =
                (cluster.connect_as("recovers", "vault_waits").await.unwrap(), token.clone());
            async move { forget(&client, &token, "x").await }
        });
        let waits_or_is_done = || async { forgetting.is_finished() || count(&admin, waits).await == 1 };
        wait_until("it waits, or is done", waits_or_is_done).await.unwrap();
        if !rotated {
            admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
        }
        other.batch_execute(&format!("{ends}; COMMIT")).await.unwrap();
        forgetting.await.unwrap().unwrap();
        for token in [token, token_of(&admin, value).await] {
            let recovered = recover(&recoverer, &token, "x").await;
            assert!(message(&recovered.expect_err(role)).starts_with("P0002 "), "{role}");
        }
    }
}

/// Nobody is told that a value was erased before the synchronous standby has that, whoever cancels the wait: after a failover it
/// would be there again.
#[tokio::test]
async fn nothing_is_forgotten_before_the_standby_has_it() {
    let (cluster, admin, recoverer) = server("vault_standby", &[]).await;
    take_in(&admin, &[login(IP, "d")]).await;
    let token = token_of(&admin, IP).await;
    let locks = cluster.connect("vault_standby").await.unwrap();
    locks.batch_execute("BEGIN; SELECT FROM pgmask.vault FOR UPDATE").await.unwrap();
    let forgetting = tokio::spawn(async move { forget(&recoverer, &token, "x").await });
    let waits_for =
        |event: &str| format!("SELECT count(*) FROM pg_stat_activity WHERE usename = 'recovers' AND {event}");
    let locked = waits_for("wait_event_type = 'Lock'");
    wait_until("it was written down", || async { count(&admin, &locked).await == 1 }).await.unwrap();
    commits_wait(&cluster, "vault_standby", &admin).await;
    locks.batch_execute("ROLLBACK").await.unwrap();
    let waits = waits_for("wait_event = 'SyncRep'");
    for _ in 0..5 {
        let waits_or_is_done = || async { forgetting.is_finished() || count(&admin, &waits).await == 1 };
        wait_until("it waits", waits_or_is_done).await.unwrap();
        assert!(!forgetting.is_finished());
        count(&admin, &waits.replace("count(*)", "count(pg_cancel_backend(pid))")).await;
    }
    nobody_waits(&admin).await;
    forgetting.await.unwrap().unwrap();
}

/// Statistics keep whole values of a column, which anybody who reads all data reads.
#[tokio::test]
async fn what_is_sealed_is_in_no_statistics() {
    let (_cluster, admin, _) = server("vault_statistics", &[]).await;
    take_in(&admin, &(0..50).map(|n| login(&format!("203.0.113.{n}"), "d")).collect::<Vec<_>>()).await;
    let bad: Vec<_> = (0..50).map(|n| (format!("bad {n}"), format!("no login {n}"))).collect();
    assert_eq!(crate::common::ingest(&admin, &bad).await, [0, 0, 50]);
    admin.batch_execute("ANALYZE pgmask.vault, pgmask.quarantine").await.unwrap();
    let kept = "SELECT count(*) FROM pg_stats WHERE schemaname = 'pgmask' AND attname LIKE 'sealed%'";
    assert_eq!(count(&admin, kept).await, 0);
    let others =
        "SELECT count(*) FROM pg_stats WHERE schemaname = 'pgmask' AND attname IN ('token', 'reason')";
    assert_eq!(count(&admin, others).await, 2);
}

/// A transaction that reads as of its beginning does not see what others do meanwhile: ingestion put in again what was forgotten, and
/// sealing anew left what it had waited for.
#[tokio::test]
async fn transactions_that_see_nothing_new_are_refused() {
    let (_cluster, admin, recoverer) = server("vault_isolation", &[]).await;
    take_in(&admin, &[login(IP, "d")]).await;
    let token = token_of(&admin, IP).await;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for call in
            ["SELECT pgmask.ingest_login('{\"user_id\": \"u\"}')", "SELECT pgmask.reseal_quarantine()"]
        {
            let begun = format!("BEGIN ISOLATION LEVEL {level}; {call}");
            let refused = message(&admin.batch_execute(&begun).await.expect_err(&begun));
            assert!(refused.starts_with("0A000 "), "{begun}: {refused}");
            admin.batch_execute("ROLLBACK").await.unwrap();
        }
    }
    // The procedure sees to it itself.
    recoverer.batch_execute("SET default_transaction_isolation = 'repeatable read'").await.unwrap();
    forget(&recoverer, &token, "x").await.unwrap();
    assert!(message(&recover(&recoverer, &token, "x").await.unwrap_err()).starts_with("P0002 "));
}
