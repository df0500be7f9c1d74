//! A server for analysts is fed by logical replication of the login table alone: it has no pg_mask, no keyring and
//! no quarantine. The statements are those of docs/operations.md.

use crate::common::{count, ingest, texts};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;
use tokio_postgres::Client;

/// The SQL blocks of the page's section.
fn statements() -> [&'static str; 2] {
    let page = include_str!("../../../docs/operations.md");
    let section = page.split("## A server for analysts").nth(1).unwrap().split("\n## ").next().unwrap();
    let blocks: Vec<&str> =
        section.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    blocks.try_into().unwrap()
}

async fn same(client: &Client, analysts: &Client) {
    let all = "SELECT r::text FROM (SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
        FROM user_logins ORDER BY user_id) AS r";
    let here = texts(client, all).await;
    wait_until("the rows are the same", || async { texts(analysts, all).await == here }).await.unwrap();
}

#[tokio::test]
async fn analysts_get_tokens_and_nothing_else() {
    let primary = Cluster::start(&["wal_level = logical", "max_wal_senders = 4"]).await.unwrap();
    let client = primary.database("logins").await.unwrap();
    let login = |user: usize, ip: &str| {
        (
            format!("message {user}"),
            format!(r#"{{"user_id":"user {user}","ip":"{ip}","device_id":"d {user}"}}"#),
        )
    };
    ingest(&client, &[login(1, "203.0.113.7"), login(2, "203.0.113.7"), login(3, "192.0.2.1")]).await;
    ingest(&client, &[("no login", "203.0.113.7")]).await;

    let [on_publisher, on_subscriber] = statements();
    client.batch_execute(on_publisher).await.unwrap();
    let server = Cluster::start(&[]).await.unwrap();
    let analysts = server.connect("postgres").await.unwrap();
    let from = format!("host=127.0.0.1 port={} user=postgres dbname=logins", primary.port());
    let said = "host=db1.example.com dbname=logins user=replicator";
    assert!(on_subscriber.contains(said));
    // Outside of a transaction block: a subscription makes a slot at the publisher.
    for statement in on_subscriber.replace(said, &from).split(';').filter(|part| !part.trim().is_empty()) {
        analysts.batch_execute(statement).await.unwrap();
    }
    same(&client, &analysts).await;
    ingest(&client, &[login(4, "203.0.113.7")]).await;
    same(&client, &analysts).await;
    // Duplicates are found there; a known address by its token, which the primary computes.
    let shared = "SELECT count(*) FROM user_logins GROUP BY masked_ip HAVING count(*) > 1";
    assert_eq!(count(&analysts, shared).await, 3);
    let token = texts(&client, "SELECT mask_pii('192.0.2.1')").await.remove(0);
    let known = format!("SELECT count(*) FROM user_logins WHERE masked_ip = '{token}'");
    assert_eq!(count(&analysts, &known).await, 1);

    // A rotation arrives as updates.
    client.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    client.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
    same(&client, &analysts).await;
    assert_eq!(count(&analysts, "SELECT count(*) FROM user_logins WHERE masked_ip LIKE 'm2\\_%'").await, 4);
    client.batch_execute("DELETE FROM user_logins WHERE user_id = 'user 4'").await.unwrap();
    same(&client, &analysts).await;

    let nothing_else = "SELECT (SELECT count(*) FROM pg_extension WHERE extname = 'pg_mask')
        + (SELECT count(*) FROM pg_namespace WHERE nspname = 'pgmask')
        + (SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'user_logins')";
    assert_eq!(count(&analysts, nothing_else).await, 0);
    assert!(!server.data().join("pg_mask.keyring").exists());
}

/// A table without a key or `REPLICA IDENTITY` can't be published and lifted, as the page says; FULL will do.
#[tokio::test]
async fn without_a_replica_identity_nothing_can_be_lifted() {
    let primary = Cluster::start(&["wal_level = logical", "max_wal_senders = 4"]).await.unwrap();
    let client = primary.database("no_identity").await.unwrap();
    ingest(&client, &[("a", r#"{"user_id":"u","ip":"203.0.113.7"}"#)]).await;
    client
        .batch_execute("CREATE PUBLICATION logins FOR TABLE user_logins; SELECT pgmask.rotate_key()")
        .await
        .unwrap();
    let remask = "CALL pgmask.remask('user_logins')";
    assert!(client.batch_execute(remask).await.is_err());
    client.batch_execute("ALTER TABLE user_logins REPLICA IDENTITY FULL").await.unwrap();
    client.batch_execute(remask).await.unwrap();
    assert_eq!(count(&client, "SELECT count(*) FROM user_logins WHERE masked_ip LIKE 'm2\\_%'").await, 1);
}
