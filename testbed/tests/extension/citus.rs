//! On a worker of a Citus cluster, CREATE EXTENSION makes no keyring of its own.
//!
//! Citus itself is not among the packages that these tests can have. In its place stands an extension of its name
//! that makes the table in which a node's own group is written down, where Citus has it, and nothing else: so these
//! tests show what pg_mask does on a node that is a worker, not that Citus passes statements on.

use crate::common::{message, texts, write_keyring};
use testbed::cluster::Cluster;
use testbed::installation;
use tokio_postgres::Client;

/// A server with a database of that group.
async fn node(group: u32) -> (Cluster, Client) {
    let extensions = &installation::shared().unwrap().extensions;
    std::fs::write(extensions.join("citus.control"), "default_version = '0'\nrelocatable = false\n").unwrap();
    // Nothing is made in pg_catalog itself, but it can be moved there.
    let sql = "CREATE TABLE public.pg_dist_local_group(groupid int PRIMARY KEY);
        INSERT INTO public.pg_dist_local_group VALUES (0);
        ALTER TABLE public.pg_dist_local_group SET SCHEMA pg_catalog;";
    std::fs::write(extensions.join("citus--0.sql"), sql).unwrap();
    let cluster = Cluster::start(&["allow_system_table_mods = on"]).await.unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    client.batch_execute("CREATE EXTENSION citus").await.unwrap();
    client.batch_execute(&format!("UPDATE pg_dist_local_group SET groupid = {group}")).await.unwrap();
    (cluster, client)
}

#[tokio::test]
async fn a_worker_takes_the_coordinators_keyring_and_makes_none() {
    let keyring = |cluster: &Cluster| cluster.data().join("pg_mask.keyring");
    let create = "CREATE EXTENSION pg_mask";
    let mask = "SELECT mask_pii('203.0.113.7')";
    let (worker, on_worker) = node(3).await;

    let error = on_worker.batch_execute(create).await.unwrap_err();
    let text = message(&error);
    let place = format!("\"{}\"", keyring(&worker).display());
    assert!(text.starts_with("F0000 this node is a worker of a Citus cluster and has no keyring"), "{text}");
    assert!(text.contains(&place), "{text}");
    let hint = error.as_db_error().unwrap().hint().unwrap();
    assert!(hint.starts_with("Copy the coordinator's keyring to this place first"), "{hint}");
    assert!(!keyring(&worker).exists());

    let (coordinator, on_coordinator) = node(0).await;
    on_coordinator.batch_execute(create).await.unwrap();

    write_keyring(&keyring(&worker), &std::fs::read(keyring(&coordinator)).unwrap());
    on_worker.batch_execute(create).await.unwrap();
    assert_eq!(texts(&on_worker, mask).await, texts(&on_coordinator, mask).await);
}

/// The table alone, without Citus, means nothing.
#[tokio::test]
async fn a_server_that_citus_was_removed_from_is_like_any_other() {
    let (cluster, client) = node(3).await;
    client
        .batch_execute("ALTER EXTENSION citus DROP TABLE pg_dist_local_group; DROP EXTENSION citus")
        .await
        .unwrap();
    client.batch_execute("CREATE EXTENSION pg_mask").await.unwrap();
    assert!(cluster.data().join("pg_mask.keyring").exists());
}
