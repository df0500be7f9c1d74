//! Many at once on a fresh server make one keyring.

use crate::common::count;
use std::collections::BTreeSet;
use testbed::cluster::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_first_calls_make_one_keyring() {
    let cluster = Cluster::start(&["max_connections = 250"]).await.unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    const DATABASES: usize = 8;
    for n in 0..DATABASES {
        client.batch_execute(&format!("CREATE DATABASE first_{n} STRATEGY wal_log")).await.unwrap();
    }
    // Each database is told to create the extension by many sessions: one of them does.
    let mut sessions = Vec::new();
    for n in 0..200 {
        sessions.push(cluster.connect(&format!("first_{}", n % DATABASES)).await.unwrap());
    }
    let tasks: Vec<_> = sessions
        .into_iter()
        .map(|session| {
            tokio::spawn(async move {
                // Whoever is late is told of a duplicate, which is as it should be.
                let _ = session.batch_execute("CREATE EXTENSION IF NOT EXISTS pg_mask").await;
                session.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get::<_, String>(0)
            })
        })
        .collect();
    let mut tokens = BTreeSet::new();
    for task in tasks {
        tokens.insert(task.await.unwrap());
    }
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    let left = std::fs::read_dir(cluster.data()).unwrap().flatten();
    let keyrings = left.filter(|file| file.file_name().to_string_lossy().contains("keyring")).count();
    assert_eq!(keyrings, 1);
    for n in 0..DATABASES {
        let client = cluster.connect(&format!("first_{n}")).await.unwrap();
        assert_eq!(count(&client, "SELECT count(*) FROM pgmask.key_check").await, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_workers_mask_alike() {
    let cluster = Cluster::start(&["max_worker_processes = 8"]).await.unwrap();
    let client = cluster.database("workers").await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE many AS SELECT n, '198.51.100.' || n % 256 AS ip FROM generate_series(1, 20000) n;
             ALTER TABLE many SET (parallel_workers = 2);
             SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
             SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off;
             CREATE TABLE serial AS SELECT n, mask_pii(ip) AS token FROM many;",
        )
        .await
        .unwrap();
    let distinct = "SELECT count(*) FROM (SELECT DISTINCT mask_pii(ip) FROM many) masked";
    let plan =
        client.query(&format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {distinct}"), &[]).await.unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("Workers Launched: 2")), "{}", plan.join("\n"));
    assert_eq!(count(&client, distinct).await, 256);
    let equal = "SELECT count(*) FROM many JOIN serial USING (n) WHERE mask_pii(ip) = token";
    assert_eq!(count(&client, equal).await, 20000);
}
