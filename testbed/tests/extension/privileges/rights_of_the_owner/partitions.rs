//! Partitions that come and go while a table is lifted, and those on other servers.

use super::mallory;
use crate::common::{cluster, count, message, texts};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;

/// A lock keeps others from adding partitions, but not code in the same transaction: a foreign one got rows with the rights of
/// the owner of the whole table.
#[tokio::test]
async fn no_partition_is_added_in_the_midst() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "in_the_midst", "pgmask_operator").await;
    admin
        .batch_execute(
            "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere; GRANT USAGE ON FOREIGN SERVER nowhere TO mallory;
             DROP TABLE user_logins CASCADE;
             CREATE TABLE user_logins (user_id text, device_type text, masked_ip text, masked_device_id text, locale text,
                 app_version integer, create_date date) PARTITION BY LIST (left(masked_ip, 3));
             CREATE TABLE hashes PARTITION OF user_logins FOR VALUES IN ('000'); INSERT INTO user_logins (masked_ip) VALUES (repeat('0', 64));
             CREATE TABLE tokens PARTITION OF user_logins FOR VALUES IN ('m1_'); CREATE TABLE others PARTITION OF user_logins DEFAULT PARTITION BY LIST (user_id);
             ALTER TABLE tokens OWNER TO mallory; ALTER TABLE others OWNER TO mallory; GRANT INSERT ON user_logins TO pgmask_writer",
        )
        .await
        .unwrap();
    for (n, command) in [
        "CREATE FOREIGN TABLE mallory.elsewhere PARTITION OF public.others FOR VALUES IN ('x') SERVER nowhere",
        "CREATE TABLE mallory.elsewhere PARTITION OF public.others FOR VALUES IN ('x')",
        "ALTER TABLE public.others ATTACH PARTITION mallory.ready FOR VALUES IN ('x')",
    ]
    .into_iter()
    .enumerate()
    {
        mallory
            .batch_execute(&format!(
                "CREATE TABLE IF NOT EXISTS mallory.ready (LIKE public.others);
                 CREATE OR REPLACE FUNCTION mallory.adds() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                     PERFORM nextval('mallory.ran'); {command}; RETURN NEW; END $$;
                 CREATE OR REPLACE TRIGGER t BEFORE INSERT ON public.tokens FOR EACH ROW EXECUTE FUNCTION mallory.adds()"
            ))
            .await
            .unwrap();
        for call in [
            "CALL pgmask.remask('public.user_logins')".to_owned(),
            format!("SELECT pgmask.ingest_login('{{\"user_id\": \"u{n}\", \"ip\": \"203.0.113.7\"}}')"),
        ] {
            let error = message(&admin.batch_execute(&call).await.expect_err(&call));
            assert!(error.starts_with("42501 "), "{command}: {call}: {error}");
        }
    }
    assert_eq!(
        count(&admin, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'others'::regclass").await,
        0
    );
}

/// Partitions that are exchanged while their parent's lock is waited for are as many as before, and others.
#[tokio::test]
async fn partitions_that_are_exchanged_are_held() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, _mallory) = mallory(&cluster, "held", "pgmask_operator").await;
    admin
        .batch_execute(
            "CREATE TABLE parts (masked_ip text, n int) PARTITION BY LIST (masked_ip); CREATE TABLE ordinary PARTITION OF parts DEFAULT;
             INSERT INTO parts VALUES (repeat('0', 64), 1);
             CREATE TABLE below PARTITION OF parts FOR VALUES IN ('x') PARTITION BY LIST (n);
             CREATE TABLE a PARTITION OF below FOR VALUES IN (1) PARTITION BY LIST (n); CREATE TABLE b (LIKE parts) PARTITION BY LIST (n)",
        )
        .await
        .unwrap();
    let exchanges = cluster.connect("held").await.unwrap();
    exchanges
        .batch_execute("BEGIN; ALTER TABLE below DETACH PARTITION a; ALTER TABLE below ATTACH PARTITION b FOR VALUES IN (1)")
        .await
        .unwrap();
    let caller = cluster.connect("held").await.unwrap();
    let calls = tokio::spawn(async move {
        caller.batch_execute("BEGIN").await.unwrap();
        caller
            .batch_execute("SELECT pgmask.remask_blocks('ordinary'::regclass, NULL, NULL, 0, 1)")
            .await
            .unwrap();
        caller
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    wait_until("it waits", || async { count(&admin, waits).await == 1 }).await.unwrap();
    exchanges.batch_execute("COMMIT").await.unwrap();
    let _caller = calls.await.unwrap();
    let held =
        "SELECT count(*) FROM pg_locks WHERE relation = 'b'::regclass AND mode = 'ShareUpdateExclusiveLock'";
    assert_eq!(count(&admin, held).await, 1);
}

/// Whoever owns a part of the login table may add one on another server, which is asked in the name of whoever reads; as a
/// superuser, a wrapper may need no password.
#[tokio::test]
async fn no_other_server_is_asked_with_the_owners_rights() {
    let admin = cluster().await.database("foreign_parts").await.unwrap();
    admin
        .batch_execute(
            "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
             DROP TABLE user_logins CASCADE;
             CREATE TABLE user_logins (user_id text, device_type text, masked_ip text, masked_device_id text, locale text,
                 app_version integer, create_date date) PARTITION BY LIST (masked_ip);
             CREATE TABLE ordinary PARTITION OF user_logins DEFAULT;
             INSERT INTO user_logins (masked_ip) VALUES (repeat('0', 64));
             CREATE TABLE below PARTITION OF user_logins FOR VALUES IN ('x') PARTITION BY LIST (user_id);
             CREATE FOREIGN TABLE public.elsewhere PARTITION OF below DEFAULT SERVER nowhere",
        )
        .await
        .unwrap();
    let tokens = "SELECT value FROM pgmask.health WHERE item = 'older_tokens'";
    assert_eq!(texts(&admin, tokens).await, ["1 of 1 sampled rows"]);
    let error = message(&admin.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap_err());
    assert!(error.starts_with("42809 partition public.elsewhere is on another server"), "{error}");
    admin.batch_execute("ALTER TABLE below DETACH PARTITION elsewhere").await.unwrap();
    admin.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
    assert_eq!(texts(&admin, tokens).await, ["0 of 1 sampled rows"]);
}
