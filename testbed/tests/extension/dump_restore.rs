//! A dump holds no key. Restored where its keyring is, tokens continue; elsewhere nothing is masked.

use crate::common::{count, message, write_keyring};
use serde_json::Value;
use testbed::cluster::Cluster;
use testbed::installation::output;

const INGEST: &str = "SELECT inserted + quarantined FROM ingest_login_batch('{a, b}',
    '{\"{\\\"user_id\\\":1,\\\"ip\\\":\\\"203.0.113.7\\\"}\", nonsense}', ARRAY[now(), now()], '{1, 1}')";

#[tokio::test]
async fn a_dump_is_worth_something_only_beside_its_keyring() {
    let old = Cluster::start(&[]).await.unwrap();
    let client = old.database("logins").await.unwrap();
    client.batch_execute("SELECT pgmask.maintain()").await.unwrap();
    assert_eq!(count(&client, INGEST).await, 2);
    let token: String = client.query_one("SELECT mask_pii('203.0.113.7')", &[]).await.unwrap().get(0);
    let keyring = std::fs::read(old.data().join("pg_mask.keyring")).unwrap();

    let dump = old.data().join("logins.dump");
    output(
        old.command("pg_dump")
            .args(["--format=custom", "--file"])
            .arg(&dump)
            .arg(old.url("postgres", "logins")),
    )
    .unwrap();
    let plain = output(old.command("pg_dump").arg(old.url("postgres", "logins"))).unwrap();
    let keys: Value = serde_json::from_slice(&keyring).unwrap();
    for kind in ["generations", "seal"] {
        assert!(!plain.contains(keys[kind][0]["key"].as_str().unwrap()), "the dump holds a key");
    }
    assert!(!plain.contains("203.0.113.7") && !plain.contains("nonsense"));

    for keyring_first in [false, true] {
        let new = Cluster::start(&[]).await.unwrap();
        if keyring_first {
            write_keyring(&new.data().join("pg_mask.keyring"), &keyring);
        }
        new.connect("postgres").await.unwrap().batch_execute("CREATE DATABASE logins").await.unwrap();
        for role in ["pgmask_ingester", "pgmask_analyst", "pgmask_recoverer", "pgmask_forwarder"] {
            let sql = format!("CREATE ROLE {role}");
            new.connect("postgres").await.unwrap().batch_execute(&sql).await.unwrap();
        }
        let restore = ["--exit-on-error", "--dbname", &new.url("postgres", "logins")].map(str::to_owned);
        output(new.command("pg_restore").args(restore).arg(&dump)).unwrap();
        let client = new.connect("logins").await.unwrap();
        if !keyring_first {
            for sql in ["SELECT mask_pii('x')", INGEST] {
                let error = message(&client.query(sql, &[]).await.unwrap_err());
                assert!(error.contains("is not the key that this database was masked with"), "{error}");
                assert!(error.contains("keyring of the server that this database comes from"), "{error}");
            }
            assert_eq!(count(&client, "SELECT count(*) FROM user_logins").await, 1);
            write_keyring(&new.data().join("pg_mask.keyring"), &keyring);
        }
        let again: String = client.query_one("SELECT mask_pii('203.0.113.7')", &[]).await.unwrap().get(0);
        assert_eq!(again, token);
        // Ledger and quarantine came along: what was taken in is not taken in again.
        let again = INGEST
            .replace("now()", "(SELECT sent_at FROM pgmask.quarantine LIMIT 1)")
            .replace("inserted + quarantined", "duplicate");
        assert_eq!(count(&client, &again).await, 2);
        let more = INGEST.replace("'{a, b}'", "'{c, d}'");
        assert_eq!(count(&client, &more).await, 2);
        assert_eq!(count(&client, "SELECT count(*) FROM pgmask.quarantine").await, 2);
        assert_eq!(count(&client, "SELECT count(*) FROM pgmask.ledger").await, 4);
        client.batch_execute("SELECT pgmask.maintain()").await.unwrap();
    }
}

#[tokio::test]
async fn the_extension_goes_and_comes_back() {
    let client = crate::common::cluster().await.database("goes_and_comes").await.unwrap();
    client.batch_execute("SELECT pgmask.maintain()").await.unwrap();
    let token: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);
    client.batch_execute("DROP EXTENSION pg_mask; CREATE EXTENSION pg_mask").await.unwrap();
    let again: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);
    assert_eq!(again, token);
}

#[tokio::test]
async fn a_restored_key_check_replaces_a_fresh_one_whole() {
    let cluster = Cluster::start(&[]).await.unwrap();
    cluster.database("one_key").await.unwrap();
    let path = cluster.data().join("pg_mask.keyring");
    let old = std::fs::read(&path).unwrap();
    let dump = output(cluster.command("pg_dump").arg(cluster.url("postgres", "one_key"))).unwrap();
    // Restored where the keyring is another one, of two generations.
    let mut other: Value = serde_json::from_slice(&old).unwrap();
    other["generations"][0]["key"] = "cd02".repeat(16).into();
    let mut second = other["generations"][0].clone();
    second["generation"] = 2.into();
    second["key"] = "ab01".repeat(16).into();
    other["generations"].as_array_mut().unwrap().push(second);
    write_keyring(&path, other.to_string().as_bytes());
    let client = cluster.connect("postgres").await.unwrap();
    client.batch_execute("CREATE DATABASE two_keys").await.unwrap();
    let sql = cluster.data().join("dump.sql");
    std::fs::write(&sql, dump).unwrap();
    output(cluster.psql("two_keys").arg("--quiet").arg("--file").arg(&sql)).unwrap();
    let client = cluster.connect("two_keys").await.unwrap();
    let error = message(&client.query("SELECT mask_pii('x')", &[]).await.unwrap_err());
    assert!(error.contains("generation 1 of the server's keyring is not the key"), "{error}");
    write_keyring(&path, &old);
    client.query_one("SELECT mask_pii('x')", &[]).await.unwrap();
}

#[tokio::test]
async fn a_key_check_that_is_no_table_is_an_error() {
    let client = crate::common::cluster().await.database("no_table").await.unwrap();
    client
        .batch_execute(
            "ALTER TABLE pgmask.key_check RENAME TO moved;
             CREATE VIEW pgmask.key_check AS TABLE pgmask.moved",
        )
        .await
        .unwrap();
    let error = message(&client.query("SELECT mask_pii('x')", &[]).await.unwrap_err());
    assert!(error.contains("pgmask.key_check is not there or not as pg_mask made it"), "{error}");
}
