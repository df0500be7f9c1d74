//! What is kept: each value once, at every size and in every session, through rotations and dumps.

use super::{IP, audited, forget, kept, login, recover, server, take_in, token_of};
use crate::common::{count, ingest, message, texts, write_keyring};
use testbed::installation::output;

#[tokio::test]
async fn a_rotation_leaves_every_value_to_be_found_at_every_moment() {
    let (cluster, admin, recoverer) = server("vault_rotated", &[]).await;
    let bodies: Vec<_> =
        (0..300).map(|n| login(&format!("10.0.{}.{}", n / 200, n % 200), &format!("device {n}"))).collect();
    take_in(&admin, &bodies[..200]).await;
    assert_eq!(kept(&admin).await, 400);
    let first = token_of(&admin, "10.0.0.7").await;
    let asks = async |tokens: &[&String]| {
        for token in tokens {
            assert_eq!(recover(&recoverer, token, "x").await.unwrap(), "10.0.0.7", "{token}");
        }
    };
    asks(&[&first]).await;
    admin.batch_execute("SELECT pgmask.rotate_key(), pgmask.rotate_seal_key()").await.unwrap();
    let second = token_of(&admin, "10.0.0.7").await;
    asks(&[&first, &second]).await;
    // New values are kept under the new keys; known ones are known.
    take_in(&admin, &bodies).await;
    assert_eq!(kept(&admin).await, 600);
    let health = "SELECT state || ': ' || value FROM pgmask.health WHERE item = 'vault'";
    assert_eq!(texts(&admin, health).await, ["warning: it holds tokens of an older generation"]);

    // Whoever operates it lifts it, beside ingestion that goes on, and learns nothing.
    admin.batch_execute("CREATE ROLE operates LOGIN IN ROLE pgmask_operator").await.unwrap();
    let operator = cluster.connect_as("operates", "vault_rotated").await.unwrap();
    let before = kept(&admin).await;
    let more: Vec<_> =
        (0..400).map(|n| login(&format!("10.1.{}.{}", n / 200, n % 200), &format!("other {n}"))).collect();
    let goes_on = async {
        for some in more.chunks(20).chain(bodies.chunks(20)) {
            take_in(&admin, some).await;
        }
    };
    let lifts = async { operator.query_one("CALL pgmask.remask('pgmask.vault')", &[]).await.unwrap() };
    let ((), lifted) = tokio::join!(goes_on, lifts);
    assert_eq!((lifted.get::<_, i64>(0), lifted.get::<_, i64>(1)), (400, 0));
    assert_eq!(kept(&admin).await, before + 800);
    let current =
        "SELECT count(*) FROM pgmask.vault WHERE token LIKE 'm2\\_%' AND get_byte(sealed_value, 4) = 2";
    assert_eq!(count(&admin, current).await, before + 800);
    assert_eq!(texts(&admin, health).await, ["ok: on"]);
    asks(&[&first, &second]).await;
    // Again: nothing to do. Only the seal is older: it is sealed anew.
    let again = "CALL pgmask.remask('pgmask.vault')";
    assert_eq!(operator.query_one(again, &[]).await.unwrap().get::<_, i64>(0), 0);
    admin.batch_execute("SELECT pgmask.rotate_seal_key()").await.unwrap();
    assert_eq!(texts(&admin, health).await, ["warning: it holds values that were sealed under an older key"]);
    assert_eq!(operator.query_one(again, &[]).await.unwrap().get::<_, i64>(0), before + 800);
    asks(&[&first, &second]).await;
    // A row that does not open is left alone.
    let broken = token_of(&admin, "device 3").await;
    let breaks = format!("UPDATE pgmask.vault SET sealed_value = sha256('') WHERE token = '{broken}'");
    assert_eq!(admin.execute(&breaks, &[]).await.unwrap(), 1);
    admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    let done = operator.query_one(again, &[]).await.unwrap();
    assert_eq!((done.get::<_, i64>(0), done.get::<_, i64>(1)), (before + 799, 1));
    asks(&[&first, &second, &token_of(&admin, "10.0.0.7").await]).await;
    assert!(message(&recover(&recoverer, &broken, "x").await.unwrap_err()).starts_with("XX001 "));
    for wrong in ["columns => '{token}'", "domain => 'pii'"] {
        let error = message(
            &admin.query(&format!("CALL pgmask.remask('pgmask.vault', {wrong})"), &[]).await.unwrap_err(),
        );
        assert!(error.starts_with("22023 "), "{error}");
    }
}

#[tokio::test]
async fn it_comes_back_with_a_dump_and_opens_beside_its_keyring_alone() {
    let (cluster, admin, _recoverer) = server("vault_dumped", &[]).await;
    take_in(&admin, &[login(IP, "d"), login("198.51.100.1", "e")]).await;
    let (token, forgotten) = (token_of(&admin, IP).await, token_of(&admin, "e").await);
    forget(&admin, &forgotten, "request").await.unwrap();
    let file = cluster.data().join("vault.dump");
    let mut dump = cluster.command("pg_dump");
    dump.args(["--format=custom", "--file"]).arg(&file);
    output(dump.arg(cluster.url("postgres", "vault_dumped"))).unwrap();
    let dumped = std::fs::read(&file).unwrap();
    assert!(!dumped.windows(IP.len()).any(|part| part == IP.as_bytes()));

    cluster.connect("postgres").await.unwrap().batch_execute("CREATE DATABASE vault_restored").await.unwrap();
    let mut restore = cluster.command("pg_restore");
    restore.args(["--exit-on-error", "--dbname", &cluster.url("postgres", "vault_restored")]);
    output(restore.arg(&file)).unwrap();
    let restored = cluster.connect_as("recovers", "vault_restored").await.unwrap();
    let admin = cluster.connect("vault_restored").await.unwrap();
    assert_eq!(recover(&restored, &token, "x").await.unwrap(), IP);
    take_in(&admin, &[login(IP, "e"), login("192.0.2.1", "new")]).await;
    assert!(message(&recover(&restored, &forgotten, "x").await.unwrap_err()).starts_with("P0002 "));
    assert_eq!(recover(&restored, &token_of(&admin, "new").await, "x").await.unwrap(), "new");
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.verify_audit()").await, 0);
    admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    admin.batch_execute("CALL pgmask.remask('pgmask.vault')").await.unwrap();
    assert_eq!(recover(&restored, &token, "x").await.unwrap(), IP);

    // Beside another keyring nothing is kept, shown or forgotten, and nothing is written down.
    let path = cluster.data().join("pg_mask.keyring");
    let good = std::fs::read_to_string(&path).unwrap();
    let mut other: serde_json::Value = serde_json::from_str(&good).unwrap();
    other["seal"][0]["key"] = "5f2c".repeat(16).into();
    write_keyring(&path, other.to_string().as_bytes());
    let before = audited(&admin).await.len();
    for again in [recover(&restored, &token, "x").await.map(|_| ()), forget(&restored, &token, "x").await] {
        assert!(message(&again.unwrap_err()).starts_with("F0000 "));
    }
    assert!(
        message(&admin.batch_execute("CALL pgmask.remask('pgmask.vault')").await.unwrap_err())
            .starts_with("F0000 ")
    );
    let login = r#"SELECT ingest_login('{"user_id":1,"ip":"192.0.2.3"}')"#;
    assert!(message(&admin.batch_execute(login).await.unwrap_err()).starts_with("F0000 "));
    assert_eq!(audited(&admin).await.len(), before);
    write_keyring(&path, good.as_bytes());
    assert_eq!(recover(&restored, &token, "x").await.unwrap(), IP);
}

/// Many sessions take in the same new values, in other orders, while a value is forgotten and the vault lifted.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_at_once_keep_each_value_once() {
    let (cluster, admin, _) = server("vault_at_once", &["deadlock_timeout = '100ms'"]).await;
    let cluster = &cluster;
    let round = async |n: usize| {
        let mut bodies: Vec<String> =
            (0..200).map(|i| login(&format!("10.0.0.{i}"), &format!("device {i}"))).collect();
        bodies.rotate_left(25 * n % 200);
        let client = cluster.connect("vault_at_once").await.unwrap();
        for (at, some) in bodies.chunks(50).enumerate() {
            let messages: Vec<_> = (0..).map(|id| format!("{n} {at} {id}")).zip(some).collect();
            assert_eq!(ingest(&client, &messages).await, [50, 0, 0]);
        }
    };
    futures_util::future::join_all((0..8).map(round)).await;
    assert_eq!(kept(&admin).await, 400);
    admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    let lifts = async {
        let client = cluster.connect("vault_at_once").await.unwrap();
        client.batch_execute("CALL pgmask.remask('pgmask.vault')").await.unwrap();
    };
    let forgets = async {
        let client = cluster.connect("vault_at_once").await.unwrap();
        for n in 0..200 {
            let token = token_of(&client, &format!("device {n}")).await;
            forget(&client, &token, "at once").await.unwrap_or_else(|error| panic!("{n}: {error:?}"));
        }
    };
    tokio::join!(futures_util::future::join_all((10..14).map(round)), lifts, forgets);
    assert_eq!(kept(&admin).await, 400);
    let left = "SELECT count(*) FROM pgmask.vault WHERE sealed_value IS NOT NULL AND token LIKE 'm2\\_%'";
    assert_eq!(count(&admin, left).await, 200, "the addresses");
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.verify_audit()").await, 0);
}

/// A vault of any size is lifted whole, in one part or in many, and a part that there is not holds nothing.
#[tokio::test]
async fn every_size_is_lifted_whole() {
    let (_cluster, admin, recoverer) = server("vault_sizes", &["fsync = off"]).await;
    let sql = "SELECT (pgmask.ingest_login_batch(array_agg(n::text), array_agg(format('{\"user_id\":1,\"ip\":\"%s\"}', host('10.0.0.0'::inet + n))),
            array_agg(now()), array_agg(1))).inserted FROM generate_series($1::int, $2::int) n HAVING count(*) > 0";
    let lift = "CALL pgmask.remask('pgmask.vault')";
    let (mut there, mut sizes) = (0, Vec::new());
    for values in [0, 1, 300, 9_000, 90_000] {
        admin.query(sql, &[&(there + 1), &values]).await.unwrap();
        there = values;
        admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
        let row = admin.query_one(lift, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (values.into(), 0));
        let size = count(&admin, "SELECT pg_relation_size('pgmask.vault')").await;
        sizes.push(size);
        assert_eq!(kept(&admin).await, i64::from(values));
    }
    assert!(sizes[2] < 1_000_000 && sizes[3] > 1_000_000 && sizes[4] > 16_000_000, "{sizes:?}");
    for (part, digits) in
        [(-1, 0), (1, 0), (16, 1), (4096, 3), (4096, 9), (i32::MAX, i32::MAX), (0, i32::MIN)]
    {
        admin.query_one("SELECT * FROM pgmask.remask_vault($1, $2)", &[&part, &digits]).await.unwrap();
    }
    assert_eq!(recover(&recoverer, &token_of(&admin, "10.0.0.77").await, "x").await.unwrap(), "10.0.0.77");
}

/// What is known already is neither sealed nor written again.
#[tokio::test]
async fn known_values_are_not_written() {
    let (_cluster, admin, _) = server("vault_known", &[]).await;
    let bodies: Vec<_> =
        (0..1000).map(|n| login(&format!("10.0.{}.{}", n / 200, n % 200), &format!("d{n}"))).collect();
    take_in(&admin, &bodies).await;
    let rows = "SELECT string_agg(xmin::text || ctid::text, ' ' ORDER BY token) FROM pgmask.vault";
    let before = texts(&admin, rows).await;
    for _ in 0..5 {
        take_in(&admin, &bodies).await;
    }
    assert_eq!(texts(&admin, rows).await, before);
}

/// Who may write to key_check can have an older key put to use, of which they may have a copy. What was sealed under the
/// newer one stays so, and monitoring sees it.
#[tokio::test]
async fn a_rotation_that_is_taken_back_seals_nothing_anew() {
    let (_cluster, admin, recoverer) = server("vault_taken_back", &[]).await;
    admin.batch_execute("SELECT pgmask.rotate_key(), pgmask.rotate_seal_key()").await.unwrap();
    take_in(&admin, &[login(IP, "d")]).await;
    let token = token_of(&admin, IP).await;
    assert_eq!(ingest(&admin, &[("q", "no login")]).await, [0, 0, 1]);
    assert_eq!(recover(&recoverer, &token, "before").await.unwrap(), IP);
    let keys = "SELECT state || ': ' || value FROM pgmask.health WHERE item = 'keys'";
    let sealed = "SELECT encode(sealed_value, 'hex') FROM pgmask.vault UNION ALL SELECT encode(sealed_body, 'hex') FROM pgmask.quarantine ORDER BY 1";
    let before = texts(&admin, sealed).await;
    assert_eq!(texts(&admin, keys).await, ["ok: generation 2 is in use, 0 wait"]);
    for taken_back in ["seal_id = 2", "generation = 2"] {
        admin.batch_execute(&format!("CREATE TABLE kept AS SELECT * FROM pgmask.key_check_own WHERE {taken_back}; DELETE FROM pgmask.key_check_own WHERE {taken_back}")).await.unwrap();
        assert_eq!(texts(&admin, keys).await, ["failed: an older key is in use than before"], "{taken_back}");
        for seals in ["CALL pgmask.remask('pgmask.vault')", "SELECT pgmask.reseal_quarantine()"] {
            admin.batch_execute(seals).await.unwrap();
            assert_eq!(texts(&admin, sealed).await, before, "{taken_back}: {seals}");
        }
        admin.batch_execute("INSERT INTO pgmask.key_check_own TABLE kept; DROP TABLE kept").await.unwrap();
    }
    // Nor is anything opened, to be sealed anew, nor with tokens to be lifted: those are left alone.
    admin.batch_execute("DELETE FROM pgmask.key_check_own WHERE seal_id = 2").await.unwrap();
    for opens in [
        format!("CALL pgmask.recover_pii('{token}', 'x')"),
        "CALL pgmask.unseal_quarantine(1, 'x')".to_owned(),
        "SELECT pgmask.replay_quarantine()".to_owned(),
    ] {
        let error = message(&admin.batch_execute(&opens).await.unwrap_err());
        assert!(error.contains("an older one is in use now"), "{opens}: {error}");
    }
    admin.batch_execute("DELETE FROM pgmask.key_check_own WHERE 2 IN (seal_id, generation)").await.unwrap();
    assert_eq!(texts(&admin, keys).await, ["failed: an older key is in use than before"]);
    admin.batch_execute("SELECT pgmask.rotate_key(), pgmask.rotate_key()").await.unwrap();
    let lifted = admin.query_one("CALL pgmask.remask('pgmask.vault')", &[]).await.unwrap();
    assert_eq!((lifted.get::<_, i64>(0), lifted.get::<_, i64>(1)), (0, 2));
    assert_eq!(texts(&admin, sealed).await, before);
    assert_eq!(texts(&admin, keys).await, ["failed: an older key is in use than before"]);
    // What the hint says.
    admin.batch_execute("SELECT pgmask.rotate_seal_key(), pgmask.rotate_key()").await.unwrap();
    assert_eq!(texts(&admin, keys).await, ["ok: generation 4 is in use, 0 wait"]);
    admin.batch_execute("CALL pgmask.remask('pgmask.vault')").await.unwrap();
    assert_eq!(recover(&recoverer, &token, "after").await.unwrap(), IP);
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.verify_audit()").await, 0);
}
