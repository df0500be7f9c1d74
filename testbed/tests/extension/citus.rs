//! On a worker of a Citus cluster, CREATE EXTENSION makes no keyring of its own.
//!
//! Citus itself is not among the packages that these tests can have. In its place stands an extension of its name
//! that makes the table in which a node's own group is written down, where Citus has it, and a function that gives
//! the answers of workers as they were put down before: so these tests show what pg_mask does on a node, not that
//! Citus passes statements on.

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
        ALTER TABLE public.pg_dist_local_group SET SCHEMA pg_catalog;
        CREATE TABLE public.answers(nodename text, nodeport int, success boolean, result text);
        CREATE TABLE public.asked(command text);
        CREATE FUNCTION pg_catalog.run_command_on_workers(command text)
            RETURNS TABLE (nodename text, nodeport int, success boolean, result text) LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO public.asked VALUES (command);
                RETURN QUERY SELECT * FROM public.answers;
            END $$;";
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

/// With different keys, `WHERE masked_ip = mask_pii(…)` finds nothing on a worker, and there is no error.
#[tokio::test]
async fn health_compares_the_keys_of_all_nodes() {
    let keyring = |cluster: &Cluster| cluster.data().join("pg_mask.keyring");
    let (coordinator, on_coordinator) = node(0).await;
    let (worker, on_worker) = node(3).await;
    on_coordinator.batch_execute("CREATE EXTENSION pg_mask").await.unwrap();
    let copy = || write_keyring(&keyring(&worker), &std::fs::read(keyring(&coordinator)).unwrap());
    copy();
    on_worker.batch_execute("CREATE EXTENSION pg_mask").await.unwrap();
    let health = async || {
        let item = "SELECT state || ': ' || value FROM pgmask.health WHERE item = 'nodes'";
        texts(&on_coordinator, item).await.remove(0)
    };
    assert_eq!(health().await, "ok: workers with the keys of this node: 0");
    let command = texts(&on_coordinator, "SELECT DISTINCT command FROM asked").await.remove(0);
    // Citus would send the command; here the worker's answer is put down by hand.
    let answers = async || {
        let answer = texts(&on_worker, &command).await.remove(0);
        let sql = "INSERT INTO answers VALUES ('worker1', 5432, true, $1)";
        on_coordinator.batch_execute("TRUNCATE answers").await.unwrap();
        on_coordinator.execute(sql, &[&answer]).await.unwrap();
    };
    answers().await;
    assert_eq!(health().await, "ok: workers with the keys of this node: 1");

    // The procedure of docs/operations.md: a key that waits changes nothing, and workers rotate first.
    on_coordinator.batch_execute("SELECT pgmask.add_key()").await.unwrap();
    answers().await;
    assert_eq!(health().await, "ok: workers with the keys of this node: 1");
    copy();
    on_worker.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    answers().await;
    assert_eq!(health().await, "failed: other keys than here, or no answer: worker1:5432");
    on_coordinator.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    assert_eq!(health().await, "ok: workers with the keys of this node: 1");

    on_coordinator
        .batch_execute("INSERT INTO answers VALUES ('worker2', 5432, false, 'no route to host')")
        .await
        .unwrap();
    assert_eq!(health().await, "failed: other keys than here, or no answer: worker2:5432");
    on_coordinator
        .batch_execute("ALTER EXTENSION citus DROP FUNCTION run_command_on_workers(text); DROP FUNCTION run_command_on_workers(text)")
        .await
        .unwrap();
    assert_eq!(health().await, "failed: SQLSTATE 42883");
}
