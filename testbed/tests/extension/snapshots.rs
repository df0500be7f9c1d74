//! A statement has one generation, that which its snapshot sees: whatever is cached between statements, in
//! procedures that commit, in cursors, in parallel workers, and whatever is rolled back.

use crate::common::{count, texts, write_keyring};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use tokio_postgres::Client;

/// Enters the keyring's second generation, as a rotation does.
const ROTATE: &str = "INSERT INTO pgmask.key_check_own (generation, check_value, created_at)
    SELECT number, check_value, created_at FROM pgmask.key_status() WHERE state = 'waiting'";

/// A database at generation 1, with a second one waiting in the keyring.
async fn waiting(cluster: &Cluster, name: &str) -> Client {
    let client = cluster.database(name).await.unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION in_plpgsql(value text) RETURNS text LANGUAGE plpgsql AS
             $$ DECLARE token text; BEGIN token := mask_pii(value); RETURN token; END $$;
             CREATE FUNCTION stable_plpgsql(value text) RETURNS text LANGUAGE plpgsql STABLE AS
             $$ BEGIN RETURN mask_pii(value); END $$;
             CREATE FUNCTION in_sql(value text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT mask_pii(value) $$",
        )
        .await
        .unwrap();
    let path = cluster.data().join("pg_mask.keyring");
    let mut ring: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let second = json!({"generation": 2, "key": "ab01".repeat(16), "created_at": "2026-11-21T00:00:00Z"});
    ring["generations"].as_array_mut().unwrap().push(second);
    write_keyring(&path, ring.to_string().as_bytes());
    client
}

/// The generation of a token.
fn generation(token: &str) -> &str {
    token.split_once('_').map_or("none", |(generation, _)| generation)
}

#[tokio::test]
async fn every_kind_of_call_site_follows_the_snapshot() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = waiting(&cluster, "call_sites").await;
    let prepared = "SELECT mask_pii($1::text), mask_pii($1::text, 'pii'), in_plpgsql($1), stable_plpgsql($1), in_sql($1)";
    let prepared = client.prepare(prepared).await.unwrap();
    let generations = async || {
        let row = client.query_one(&prepared, &[&"x"]).await.unwrap();
        (0..row.len()).map(|n| generation(row.get(n)).to_owned()).collect::<Vec<_>>()
    };
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}")).await.unwrap();
        assert_eq!(generations().await, ["m1"; 5], "{isolation}");
        client.batch_execute("SAVEPOINT before").await.unwrap();
        client.batch_execute(ROTATE).await.unwrap();
        assert_eq!(generations().await, ["m2"; 5], "{isolation}");
        client.batch_execute("ROLLBACK TO before").await.unwrap();
        assert_eq!(generations().await, ["m1"; 5], "{isolation}");
        client.batch_execute(ROTATE).await.unwrap();
        assert_eq!(generations().await, ["m2"; 5], "{isolation}");
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(generations().await, ["m1"; 5], "{isolation}");
    }
    // Within PL/pgSQL the same expression runs before a rotation, after it, and after it was undone.
    client
        .batch_execute(
            "CREATE FUNCTION to_and_fro() RETURNS SETOF text LANGUAGE plpgsql AS $$
             BEGIN
                 FOR turn IN 1 .. 4 LOOP
                     BEGIN
                         RETURN NEXT in_plpgsql('x');
                         RETURN NEXT mask_pii('x');
                         INSERT INTO pgmask.key_check_own (generation, check_value, created_at)
                             SELECT number, check_value, created_at FROM pgmask.key_status() WHERE state = 'waiting';
                         RETURN NEXT in_plpgsql('x');
                         RETURN NEXT mask_pii('x');
                         RAISE division_by_zero;
                     EXCEPTION WHEN division_by_zero THEN
                     END;
                 END LOOP;
             END $$",
        )
        .await
        .unwrap();
    for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}")).await.unwrap();
        let tokens = texts(&client, "SELECT to_and_fro()").await;
        let found: Vec<_> = tokens.iter().map(|token| generation(token)).collect();
        assert_eq!(found, ["m1", "m1", "m2", "m2"].repeat(4), "{isolation}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn a_procedure_that_commits_sees_what_was_committed_meanwhile() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = waiting(&cluster, "procedures").await;
    client
        .batch_execute(
            "CREATE TABLE tokens (turn int, token text);
             CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$
             BEGIN
                 FOR turn IN 1 .. 3 LOOP
                     INSERT INTO tokens VALUES (turn, mask_pii('x')), (turn, in_plpgsql('x'));
                     IF turn = 1 THEN
                         INSERT INTO pgmask.key_check_own (generation, check_value, created_at)
                             SELECT number, check_value, created_at FROM pgmask.key_status() WHERE state = 'waiting';
                         ROLLBACK;
                         INSERT INTO tokens VALUES (turn, mask_pii('x')), (turn, in_plpgsql('x'));
                     ELSE
                         INSERT INTO pgmask.key_check_own (generation, check_value, created_at)
                             SELECT number, check_value, created_at FROM pgmask.key_status() WHERE state = 'waiting';
                         COMMIT;
                     END IF;
                 END LOOP;
             END $$",
        )
        .await
        .unwrap();
    client.batch_execute("CALL commits()").await.unwrap();
    let found = "SELECT turn || ' ' || left(token, 2) || ' ' || count(*) FROM tokens GROUP BY turn, left(token, 2) ORDER BY 1";
    assert_eq!(texts(&client, found).await, ["1 m1 2", "2 m1 2", "3 m2 2"]);
}

#[tokio::test]
async fn what_is_under_way_keeps_its_generation() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = waiting(&cluster, "under_way").await;
    let other = cluster.connect("under_way").await.unwrap();
    client
        .batch_execute(
            "BEGIN; DECLARE cursor CURSOR FOR SELECT mask_pii('x'), mask_pii(n::text), in_sql('x') FROM generate_series(1, 4) n;
             FETCH FROM cursor",
        )
        .await
        .unwrap();
    let repeatable = cluster.connect("under_way").await.unwrap();
    repeatable.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT mask_pii('x')").await.unwrap();
    other.batch_execute(ROTATE).await.unwrap();

    let row = client.query_one("FETCH FROM cursor", &[]).await.unwrap();
    for n in 0..row.len() {
        assert_eq!(generation(row.get(n)), "m1");
    }
    let next = "SELECT mask_pii('x') UNION ALL SELECT in_plpgsql('x')";
    for token in texts(&client, next).await {
        assert_eq!(generation(&token), "m2", "the next statement of the same transaction");
    }
    let row = client.query_one("FETCH FROM cursor", &[]).await.unwrap();
    for n in 0..row.len() {
        assert_eq!(generation(row.get(n)), "m1");
    }
    for token in texts(&repeatable, next).await {
        assert_eq!(generation(&token), "m1", "a transaction that sees no change of anything");
    }
    repeatable.batch_execute("COMMIT").await.unwrap();
    for token in texts(&repeatable, next).await {
        assert_eq!(generation(&token), "m2");
    }
}

#[tokio::test]
async fn parallel_workers_have_their_leaders_generation() {
    let cluster = Cluster::start(&["max_worker_processes = 8"]).await.unwrap();
    let client = waiting(&cluster, "workers_follow").await;
    client
        .batch_execute(
            "CREATE TABLE many AS SELECT n FROM generate_series(1, 20000) n;
             ALTER TABLE many SET (parallel_workers = 2);
             SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
             SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off",
        )
        .await
        .unwrap();
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT mask_pii('x')").await.unwrap();
    let other = cluster.connect("workers_follow").await.unwrap();
    other.batch_execute(ROTATE).await.unwrap();
    let found = "SELECT left(mask_pii(n::text), 2) || left(mask_pii('constant'), 2) FROM many GROUP BY 1";
    let plan = texts(&client, &format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {found}")).await;
    assert!(plan.iter().any(|line| line.contains("Workers Launched: 2")), "{}", plan.join("\n"));
    assert_eq!(texts(&client, found).await, ["m1m1"]);
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(texts(&client, found).await, ["m2m2"]);
}

/// What a call site remembers is no more than a value that comes again.
#[tokio::test]
async fn a_remembered_token_is_that_of_its_value() {
    let client = crate::common::cluster().await.database("remembered").await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE plain AS
                 SELECT n, CASE WHEN n % 7 = 0 THEN repeat('x', 240 + n % 40) WHEN n % 11 = 0 THEN ' ' ELSE 'v' || n / 3 END AS value
                 FROM generate_series(1, 5000) n;
             CREATE FUNCTION one_site(value text) RETURNS text LANGUAGE plpgsql STABLE AS
                 $$ BEGIN RETURN mask_pii(value); END $$;
             CREATE FUNCTION one_site(value text, domain text) RETURNS text LANGUAGE plpgsql STABLE AS
                 $$ BEGIN RETURN mask_pii(value, domain); END $$",
        )
        .await
        .unwrap();
    let wrong = "WITH expected AS MATERIALIZED (SELECT value, mask_pii(value) AS token, mask_pii(value, 'd1') AS other FROM (SELECT value FROM (SELECT DISTINCT value FROM plain) d ORDER BY random()) s)
        SELECT count(*) FROM plain JOIN expected USING (value)
        WHERE mask_pii(plain.value) IS DISTINCT FROM token OR one_site(plain.value) IS DISTINCT FROM token
           OR mask_pii(plain.value, 'd' || n % 2) IS DISTINCT FROM CASE n % 2 WHEN 1 THEN other ELSE mask_pii(plain.value, 'd0') END
           OR one_site(plain.value, 'd1') IS DISTINCT FROM other";
    assert_eq!(count(&client, wrong).await, 0);
    let empty_domain = "SELECT count(*) FROM plain WHERE mask_pii('x', '') = mask_pii('x') OR mask_pii('x', 'pii') <> mask_pii('x')";
    assert_eq!(count(&client, empty_domain).await, 0);
    let kept =
        "SELECT count(DISTINCT token) FROM (SELECT unnest(array_agg(mask_pii(value))) AS token FROM plain) s";
    let values = "SELECT count(DISTINCT value) FROM plain WHERE value <> ' '";
    assert_eq!(count(&client, kept).await, count(&client, values).await);
}
