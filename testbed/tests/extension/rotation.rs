//! Keys change, duplicates stay: a rotation is a transaction, and every token can be lifted.

use crate::common::{count, ingest, logins, message, texts, write_keyring};
use serde_json::Value;
use std::fs;
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;
use tokio_postgres::Client;

const STATUS: &str = "SELECT concat_ws(' ', kind, number, current, state) FROM pgmask.key_status()";

async fn token(client: &Client) -> String {
    client.query_one("SELECT mask_pii('203.0.113.7')", &[]).await.unwrap().get(0)
}

async fn rotate(client: &Client) -> i64 {
    count(client, "SELECT pgmask.rotate_key()::bigint").await
}

#[tokio::test]
async fn a_rotation_is_a_transaction_and_a_key_that_is_added_waits() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("rotation").await.unwrap();
    let other = cluster.connect("rotation").await.unwrap();
    let first = token(&client).await;
    assert_eq!(count(&client, "SELECT pgmask.add_key()::bigint").await, 2);
    assert_eq!(texts(&client, STATUS).await, ["mask 1 t ok", "mask 2 f waiting", "seal 1 t ok"]);
    assert_eq!(token(&client).await, first, "a key that waits changes nothing");

    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(rotate(&client).await, 2);
    assert!(token(&client).await.starts_with("m2_"));
    assert_eq!(token(&other).await, first, "it is not committed");
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(token(&client).await, first);

    assert_eq!(rotate(&client).await, 2, "the key that waits is used, and none is added");
    let second = token(&other).await;
    assert!(second.starts_with("m2_"));
    assert_eq!(rotate(&client).await, 3, "one is added where none waits");
    assert_eq!(rotate(&other).await, 4);
    let third = token(&client).await;
    for older in [&first, &second] {
        let row = client.query_one("SELECT pgmask.current_mask($1)", &[older]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), third);
    }
    let states = ["mask 1 f ok", "mask 2 f ok", "mask 3 f ok", "mask 4 t ok", "seal 1 t ok"];
    assert_eq!(texts(&client, STATUS).await, states);
    assert_eq!(count(&client, "SELECT count(*) FROM pgmask.key_check").await, 5);

    // Seal keys likewise; what was sealed before can still be opened.
    ingest(&client, &[("a", "not a login")]).await;
    assert_eq!(count(&client, "SELECT pgmask.rotate_seal_key()::bigint").await, 2);
    ingest(&client, &[("b", "not a login")]).await;
    let sql = "SELECT count(*) FROM pgmask.replay_quarantine() WHERE kept = 2";
    assert_eq!(count(&client, sql).await, 1, "both are opened and looked at");

    // Sealed anew, each once; nothing but the sealed bodies changes, and they still open.
    ingest(&client, &(0..50).map(|n| (format!("c {n}"), "x".repeat(n * 100))).collect::<Vec<_>>()).await;
    assert_eq!(count(&client, "SELECT pgmask.rotate_seal_key()::bigint").await, 3);
    let others = "SELECT md5(string_agg((q.id, q.message_id, q.sent_at, q.reason, q.quarantined_at)::text, ' ' ORDER BY q.id))
        FROM pgmask.quarantine q";
    let before = texts(&client, others).await;
    let mut resealed = Vec::new();
    for _ in 0..4 {
        resealed.push(count(&client, "SELECT pgmask.reseal_quarantine(20)::bigint").await);
    }
    assert_eq!(resealed, [20, 20, 12, 0]);
    assert_eq!(texts(&client, others).await, before);
    let ids = "SELECT count(*) FROM pgmask.quarantine WHERE get_byte(sealed_body, 4) = 3";
    assert_eq!(count(&client, ids).await, 52);
    assert_eq!(count(&client, "SELECT kept FROM pgmask.replay_quarantine()").await, 52);
}

/// What `current_mask` gives back, and what `mask_generation` says of it.
#[tokio::test]
async fn only_tokens_and_hashes_are_lifted() {
    let client = crate::common::cluster().await.database("lifted").await.unwrap();
    let digits = "5f".repeat(32);
    for (given, generation) in [
        ("", None),
        ("203.0.113.7", None),
        (&format!("m0_{digits}"), None),
        (&format!("m01_{digits}"), None),
        (&format!("m1_{}", digits.to_uppercase()), None),
        (&format!(" {digits}"), None),
        (&digits[1..], None),
        (&format!("m1_{digits}"), Some(1)),
        (&format!("m7_{digits}"), Some(7)),
        (&format!("m2147483647_{digits}"), Some(i32::MAX)),
        (&format!("m2147483648_{digits}"), None),
    ] {
        let sql = "SELECT pgmask.current_mask($1), pgmask.mask_generation($1)";
        let row = client.query_one(sql, &[&given]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), given, "not older than the generation in use: as it is");
        assert_eq!(row.get::<_, Option<i32>>(1), generation, "{given}");
    }
    let sql = "SELECT count(*) FROM (SELECT encode(sha256('x'), 'hex') AS h) s
        WHERE pgmask.current_mask(h) = mask_pii('x') AND pgmask.current_mask(upper(h)) = mask_pii('x')
          AND pgmask.current_mask(h, 'email') = mask_pii('x', 'email') AND pgmask.mask_generation(h) = 0
          AND pgmask.current_mask(NULL) IS NULL AND pgmask.mask_generation(NULL) IS NULL";
    assert_eq!(count(&client, sql).await, 1);
}

#[tokio::test]
async fn two_databases_beside_one_keyring_rotate_each_in_its_own_time() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let one = cluster.database("one").await.unwrap();
    let two = cluster.database("two").await.unwrap();
    assert_eq!(token(&one).await, token(&two).await);
    assert_eq!(rotate(&one).await, 2);
    assert!(token(&two).await.starts_with("m1_"));
    assert_eq!(rotate(&two).await, 2);
    assert_eq!(token(&one).await, token(&two).await);
    // Many at once, in both: each makes one step, and no key is lost.
    let steps = (0..10).map(|n| {
        let (cluster, name) = (&cluster, ["one", "two"][n % 2]);
        async move {
            let client = cluster.connect(name).await.unwrap();
            rotate(&client).await
        }
    });
    let mut reached = futures_util::future::join_all(steps).await;
    reached.sort_unstable();
    assert_eq!(reached, [3, 3, 4, 4, 5, 5, 6, 6, 7, 7]);
    assert_eq!(token(&one).await, token(&two).await);
    // Two that came at once may have added one each, of which one waits.
    let there = count(&one, "SELECT max(number)::bigint FROM pgmask.key_status() WHERE kind = 'mask'").await;
    let adds = (0..8).map(|_| async {
        count(&cluster.connect("one").await.unwrap(), "SELECT pgmask.add_key()::bigint").await
    });
    let mut added = futures_util::future::join_all(adds).await;
    added.sort_unstable();
    assert_eq!(added, (there + 1..=there + 8).collect::<Vec<_>>());
}

/// Sessions with every kind of cached plan change over with the next statement.
#[tokio::test]
async fn every_cached_plan_follows() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("cached_plans").await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE stored (token text DEFAULT mask_pii('203.0.113.7'));
             CREATE VIEW seen AS SELECT mask_pii('203.0.113.7') AS token;
             CREATE MATERIALIZED VIEW kept AS SELECT mask_pii('203.0.113.7') AS token;
             CREATE FUNCTION in_plpgsql() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN mask_pii('203.0.113.7'); END $$;
             CREATE FUNCTION in_sql() RETURNS text LANGUAGE sql AS $$ SELECT mask_pii('203.0.113.7') $$;
             PREPARE prepared AS SELECT mask_pii('203.0.113.7');
             PREPARE generic(text) AS SELECT mask_pii($1);
             SET plan_cache_mode = force_generic_plan",
        )
        .await
        .unwrap();
    let driver_prepared = client.prepare("SELECT mask_pii($1)").await.unwrap();
    for generation in 1..=3 {
        let expected = token(&client).await;
        assert!(expected.starts_with(&format!("m{generation}_")));
        for sql in [
            "EXECUTE prepared",
            "EXECUTE generic('203.0.113.7')",
            "SELECT in_plpgsql()",
            "SELECT in_sql()",
            "TABLE seen",
            "INSERT INTO stored DEFAULT VALUES RETURNING token",
            "SELECT pgmask.current_mask(token) FROM kept",
            "SELECT DISTINCT pgmask.current_mask(token) FROM stored",
        ] {
            let rows = client.simple_query(sql).await.unwrap();
            let found = rows.iter().find_map(|row| match row {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            assert_eq!(found, Some(expected.as_str()), "{sql}");
        }
        let row = client.query_one(&driver_prepared, &[&"203.0.113.7"]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), expected);
        rotate(&client).await;
    }
}

/// At every sample of `current_mask`, no duplicate is lost and none is made, while messages come in and
/// keys change.
#[tokio::test]
async fn counts_are_right_at_every_moment() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("moments").await.unwrap();
    let (writer, reader) =
        (cluster.connect("moments").await.unwrap(), cluster.connect("moments").await.unwrap());
    let writing = async {
        for batch in 0..60 {
            let numbers = batch * 50..(batch + 1) * 50;
            let messages: Vec<_> = numbers
                .map(|n| {
                    let body = format!(r#"{{"user_id":{n},"ip":"198.51.100.{}"}}"#, n % 200);
                    (format!("message {n}"), body)
                })
                .collect();
            assert_eq!(ingest(&writer, &messages).await, [50, 0, 0]);
        }
    };
    let rotating = async {
        for _ in 0..6 {
            rotate(&client).await;
            client.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
        }
    };
    let sampling = async {
        let sql = "SELECT count(*), count(DISTINCT pgmask.current_mask(masked_ip)) FROM user_logins";
        let mut last = 0;
        while last < 3000 {
            let row = reader.query_one(sql, &[]).await.unwrap();
            let (rows, distinct): (i64, i64) = (row.get(0), row.get(1));
            assert_eq!(distinct, rows.min(200), "of {rows} rows");
            assert!(rows >= last);
            last = rows;
        }
    };
    tokio::join!(writing, rotating, sampling);
    client.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
    assert_eq!(count(&client, "SELECT count(DISTINCT masked_ip) FROM user_logins").await, 200);
    assert_eq!(count(&client, "SELECT count(*) FROM user_logins WHERE masked_ip NOT LIKE 'm7\\_%'").await, 0);
}

/// An older keyring that is put back is refused, and so is one with another key.
#[tokio::test]
async fn an_older_keyring_fails_closed() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("older_keyring").await.unwrap();
    let path = cluster.data().join("pg_mask.keyring");
    let old = fs::read(&path).unwrap();
    rotate(&client).await;
    let new = fs::read(&path).unwrap();
    write_keyring(&path, &old);
    for sql in [
        "SELECT mask_pii('x')",
        "SELECT pgmask.current_mask('x')",
        "SELECT pgmask.rotate_key()",
        "CALL pgmask.remask('user_logins')",
    ] {
        let error = message(&client.simple_query(sql).await.unwrap_err());
        assert!(error.starts_with("F0000 the server's keyring has no generation 2"), "{sql}: {error}");
    }
    write_keyring(&path, &new);
    assert!(token(&client).await.starts_with("m2_"));
    let parsed: Value = serde_json::from_slice(&new).unwrap();
    assert_eq!(parsed["generations"].as_array().unwrap().len(), 2);
}

/// The server is killed while keys are added and put to use, many times: the keyring is always whole, and
/// has every key that the database uses.
#[tokio::test]
async fn a_crash_leaves_a_whole_keyring() {
    let mut cluster = Cluster::start(&[]).await.unwrap();
    drop(cluster.database("crashes").await.unwrap());
    let mut last = 1;
    for round in 1..=8 {
        let client = cluster.connect("crashes").await.unwrap();
        let (tell, mut told) = tokio::sync::watch::channel(0);
        let working = tokio::spawn(async move {
            while client.query_one("SELECT pgmask.rotate_key(), pgmask.add_key()", &[]).await.is_ok() {
                tell.send_modify(|steps| *steps += 1);
            }
        });
        // In the midst of the next step.
        told.wait_for(|steps| *steps >= round).await.unwrap();
        cluster.stop("KILL").unwrap();
        working.await.unwrap();
        cluster.restart().await.unwrap();
        let client = cluster.connect("crashes").await.unwrap();
        assert_eq!(texts(&client, STATUS).await.iter().filter(|row| row.ends_with("missing")).count(), 0);
        let reached = count(&client, "SELECT pgmask.mask_generation(mask_pii('x'))::bigint").await;
        assert!(reached >= last + round, "what was answered is durable: {reached}, {last}");
        last = reached;
    }
    let leftovers = fs::read_dir(cluster.data())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(".keyring."))
        .count();
    assert!(leftovers <= 1, "what a crash leaves is removed by the next step: {leftovers}");
    let client = cluster.connect("crashes").await.unwrap();
    assert_eq!(ingest(&client, &[("a", &logins(0..1)[0])]).await, [1, 0, 0]);
}

/// A batch that began before a rotation of the seal key, and a replay that keeps what is refused as it was, are waited for:
/// "0" says that nothing is left under an older key.
#[tokio::test]
async fn resealing_waits_for_who_began_before() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("reseal_waits").await.unwrap();
    let other = cluster.connect("reseal_waits").await.unwrap();
    let batch_of = cluster.connect("reseal_waits").await.unwrap();
    let refused = "SELECT pgmask.ingest_login_batch(ARRAY['$id'], '{bad}', ARRAY[now()], '{1}')";
    admin.batch_execute(&refused.replace("$id", "a")).await.unwrap();
    let under_older = "SELECT count(*) FROM pgmask.quarantine WHERE substr(sealed_body, 2, 4) <> (SELECT int4send(max(seal_id)) FROM pgmask.key_check)";
    // It has read its keys, and has not come to the quarantine yet.
    let slowly = "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
        CREATE TRIGGER slowly BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION slowly(); BEGIN; SELECT pg_advisory_xact_lock(1)";
    admin.batch_execute(slowly).await.unwrap();
    admin.batch_execute("COMMIT; SELECT pg_advisory_lock(1)").await.unwrap();
    let batch =
        tokio::spawn(async move { ingest(&batch_of, &[("c", "{\"user_id\": \"u\"}"), ("d", "bad")]).await });
    let is_waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    wait_until("the batch waits", || async { count(&admin, is_waiting).await == 1 }).await.unwrap();
    admin.batch_execute("SELECT pgmask.rotate_seal_key()").await.unwrap();
    let reseals = cluster.connect("reseal_waits").await.unwrap();
    let resealed =
        tokio::spawn(async move { count(&reseals, "SELECT pgmask.reseal_quarantine()::bigint").await });
    let reseal_waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%reseal_quarantine()::bigint' AND wait_event = 'PgSleep'";
    wait_until("it waits", || async { resealed.is_finished() || count(&admin, reseal_waits).await == 1 })
        .await
        .unwrap();
    admin.batch_execute("SELECT pg_advisory_unlock(1); DROP TRIGGER slowly ON user_logins").await.unwrap();
    assert_eq!(batch.await.unwrap(), [1, 0, 1]);
    assert_eq!(resealed.await.unwrap(), 2);
    assert_eq!(count(&admin, under_older).await, 0);
    for begins in [refused.replace("$id", "b").as_str(), "SELECT * FROM pgmask.replay_quarantine()"] {
        other.batch_execute(&format!("BEGIN; {begins}")).await.unwrap();
        admin.batch_execute("SELECT pgmask.rotate_seal_key()").await.unwrap();
        let reseals = cluster.connect("reseal_waits").await.unwrap();
        let resealed =
            tokio::spawn(async move { count(&reseals, "SELECT pgmask.reseal_quarantine()::bigint").await });
        let is_waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%reseal_quarantine()::bigint' AND wait_event = 'PgSleep'";
        wait_until("it waits", || async { count(&admin, is_waiting).await == 1 }).await.unwrap();
        other.batch_execute("COMMIT").await.unwrap();
        assert_eq!(resealed.await.unwrap(), 3, "{begins}");
        assert_eq!(count(&admin, under_older).await, 0, "{begins}");
    }
}
