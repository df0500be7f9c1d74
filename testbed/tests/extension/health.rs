//! `pgmask.health` has a row for each thing that can need somebody; each is made bad here, and good again.

use crate::common::{count, ingest, message, texts, write_keyring};
use std::fs;
use testbed::cluster::Cluster;
use tokio_postgres::Client;

/// A row as `state: value`, and whether it has a hint exactly if it is not ok.
async fn item(client: &Client, item: &str) -> String {
    let sql =
        "SELECT state || ': ' || value, (hint IS NULL) = (state = 'ok') FROM pgmask.health WHERE item = $1";
    let row = client.query_one(sql, &[&item]).await.unwrap();
    assert!(row.get::<_, bool>(1), "{item} has a hint if it is not ok, and none if it is");
    row.get(0)
}

#[tokio::test]
async fn each_row_is_bad_and_good_again() {
    let cluster = Cluster::start(&["shared_preload_libraries = 'pg_mask'"]).await.unwrap();
    let client = cluster.database("health").await.unwrap();
    let path = cluster.data().join("pg_mask.keyring");
    let items = "SELECT item FROM pgmask.health";
    let all = [
        "keys",
        "keyring_place",
        "guess_limit",
        "ledger",
        "quarantine",
        "older_tokens",
        "vault",
        "logging",
        "roles",
        "writer",
    ];
    assert_eq!(texts(&client, items).await, all);
    assert_eq!(item(&client, "keys").await, "ok: generation 1 is in use, 0 wait");

    let good = fs::read(&path).unwrap();
    fs::rename(&path, path.with_extension("away")).unwrap();
    assert_eq!(item(&client, "keys").await, "failed: SQLSTATE F0000");
    assert_eq!(texts(&client, items).await, all, "the other rows are there nevertheless");
    write_keyring(&path, &good);

    assert_eq!(item(&client, "keyring_place").await, "warning: inside the data directory");
    let outside = tempfile::Builder::new().prefix("pg_mask-elsewhere").tempdir().unwrap();
    let elsewhere = outside.path().join("keyring");
    write_keyring(&elsewhere, &good);
    fs::set_permissions(outside.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    client.batch_execute(&format!("SET pgmask.keyring_file = '{}'", elsewhere.display())).await.unwrap();
    assert_eq!(item(&client, "keyring_place").await, "ok: outside the data directory");
    client.batch_execute("RESET pgmask.keyring_file").await.unwrap();

    let limit = "10000 values an hour, all sessions of a role together";
    assert_eq!(item(&client, "guess_limit").await, format!("ok: {limit}"));
    client.batch_execute("SET pgmask.guess_limit = -1").await.unwrap();
    assert_eq!(item(&client, "guess_limit").await, "warning: no limit");
    client.batch_execute("RESET pgmask.guess_limit").await.unwrap();

    assert_eq!(item(&client, "ledger").await, "ok: kept for 15 days, never maintained");
    let old = "INSERT INTO pgmask.ledger SELECT gen_random_uuid(), 9, now()::date - ";
    client.batch_execute(&format!("{old} 17")).await.unwrap();
    assert_eq!(item(&client, "ledger").await, "ok: kept for 15 days, never maintained");
    client.batch_execute(&format!("{old} 60")).await.unwrap();
    assert_eq!(
        item(&client, "ledger").await,
        "warning: 1 of its 33 slots are to be emptied, never maintained"
    );
    // Who works there does not make monitoring wait for long, nor fail.
    let other = cluster.connect("health").await.unwrap();
    other.batch_execute("BEGIN; LOCK TABLE pgmask.ledger_9").await.unwrap();
    assert_eq!(texts(&client, items).await, all);
    other.batch_execute("ROLLBACK; TRUNCATE pgmask.ledger").await.unwrap();
    client
        .batch_execute("SELECT pgmask.maintain(); UPDATE pgmask.ledger_slot SET look_when_old = now()::date - 30 WHERE slot < 3")
        .await
        .unwrap();
    let maintained = async |ago: &str| {
        let at = format!(
            "SELECT to_char((now() - interval '{ago}') AT TIME ZONE 'UTC', '\", maintained at \"YYYY-MM-DD HH24:MI\" UTC\"')"
        );
        let set = format!(
            "UPDATE pgmask.ledger_slot SET maintained_at = now() - interval '{ago}' WHERE maintained_at IS NOT NULL"
        );
        client.batch_execute(&set).await.unwrap();
        texts(&client, &at).await.remove(0)
    };
    let at = maintained("2 hours").await;
    assert_eq!(item(&client, "ledger").await, format!("warning: 3 of its 33 slots are to be emptied{at}"));
    client.batch_execute("SELECT pgmask.maintain()").await.unwrap();
    let ok = item(&client, "ledger").await;
    assert!(ok.starts_with("ok: kept for 15 days, maintained at ") && !ok.ends_with(&at), "{ok}");

    assert_eq!(item(&client, "quarantine").await, "ok: 0 in the last hour, 0 in the last day");
    ingest(&client, &[("a", "not a login"), ("b", r#"{"user_id":1,"ip":"203.0.113.7"}"#)]).await;
    assert_eq!(item(&client, "quarantine").await, "warning: 1 in the last hour, 1 in the last day");
    client
        .batch_execute("UPDATE pgmask.quarantine SET quarantined_at = now() - interval '2 days'")
        .await
        .unwrap();
    assert_eq!(item(&client, "quarantine").await, "ok: 0 in the last hour, 0 in the last day");

    assert_eq!(item(&client, "older_tokens").await, "ok: 0 of 1 sampled rows");
    client.batch_execute("SELECT pgmask.rotate_key(), pgmask.add_key()").await.unwrap();
    assert_eq!(item(&client, "keys").await, "ok: generation 2 is in use, 1 wait");
    assert_eq!(item(&client, "older_tokens").await, "warning: 1 of 1 sampled rows");
    client.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
    assert_eq!(item(&client, "older_tokens").await, "ok: 0 of 1 sampled rows");
    client.batch_execute("BEGIN; DELETE FROM pgmask.key_check").await.unwrap();
    assert_eq!(item(&client, "keys").await, "failed: pgmask.key_check names none that is in use");
    assert_eq!(item(&client, "older_tokens").await, "warning: not looked at, as no key is in use");
    client.batch_execute("ROLLBACK").await.unwrap();
    client.batch_execute("ALTER TABLE user_logins RENAME TO moved").await.unwrap();
    assert_eq!(item(&client, "older_tokens").await, "failed: there is no login table");
    client.batch_execute("ALTER TABLE moved RENAME TO user_logins").await.unwrap();

    assert_eq!(item(&client, "vault").await, "ok: off");
    client.batch_execute("SET pgmask.vault = on").await.unwrap();
    assert_eq!(item(&client, "vault").await, "ok: on");
    ingest(&client, &[("c", r#"{"user_id":1,"ip":"203.0.113.7"}"#)]).await;
    client.batch_execute("SELECT pgmask.rotate_key(), pgmask.rotate_seal_key()").await.unwrap();
    assert_eq!(item(&client, "vault").await, "warning: it holds tokens of an older generation");
    client.batch_execute("CALL pgmask.remask('pgmask.vault')").await.unwrap();
    assert_eq!(item(&client, "vault").await, "ok: on");
    client.batch_execute("SELECT pgmask.rotate_seal_key()").await.unwrap();
    assert_eq!(item(&client, "vault").await, "warning: it holds values that were sealed under an older key");
    client.batch_execute("CALL pgmask.remask('pgmask.vault')").await.unwrap();
    client.batch_execute("SET pgmask.vault = off").await.unwrap();
    assert_eq!(item(&client, "vault").await, "ok: off");

    assert_eq!(item(&client, "logging").await, "ok: the server logs no message of a role that ingests");
    client.batch_execute("CREATE ROLE talkative LOGIN; GRANT pgmask_ingester TO talkative").await.unwrap();
    assert_eq!(item(&client, "logging").await, "warning: the server may log messages of talkative");
    client.batch_execute("DROP ROLE talkative").await.unwrap();
    assert_eq!(item(&client, "logging").await, "ok: the server logs no message of a role that ingests");
    // What is set for the role in a database counts more than what is set for the role.
    client
        .batch_execute(
            "ALTER ROLE pgmask_forwarder IN DATABASE health SET plan_cache_mode = 'force_custom_plan'",
        )
        .await
        .unwrap();
    assert_eq!(item(&client, "logging").await, "warning: the server may log messages of pgmask_forwarder");
    client.batch_execute("ALTER ROLE pgmask_forwarder IN DATABASE health RESET ALL").await.unwrap();
    assert_eq!(item(&client, "logging").await, "ok: the server logs no message of a role that ingests");

    let made = "ok: as sql/00_roles.sql made them";
    assert_eq!(item(&client, "roles").await, made);
    client
        .batch_execute("ALTER ROLE pgmask_unlimited RENAME TO renamed; CREATE ROLE pgmask_unlimited")
        .await
        .unwrap();
    assert_eq!(item(&client, "roles").await, "warning: not made by sql/00_roles.sql: pgmask_unlimited");
    client
        .batch_execute("DROP ROLE pgmask_unlimited; ALTER ROLE renamed RENAME TO pgmask_unlimited")
        .await
        .unwrap();
    assert_eq!(item(&client, "roles").await, made);

    client
        .batch_execute(
            "CREATE FUNCTION public.left_behind() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM public.user_logins';
             ALTER FUNCTION public.left_behind() OWNER TO pgmask_analyst",
        )
        .await
        .unwrap();
    assert_eq!(item(&client, "roles").await, "warning: own something: pgmask_analyst");
    client.batch_execute("DROP FUNCTION public.left_behind()").await.unwrap();
    assert_eq!(item(&client, "roles").await, made);

    client
        .batch_execute("CREATE ROLE acts; GRANT pgmask_refresher TO acts; CREATE TABLE left_behind (n int); ALTER TABLE left_behind OWNER TO pgmask_refresher")
        .await
        .unwrap();
    assert_eq!(item(&client, "roles").await, "warning: own something: pgmask_refresher");
    client.batch_execute("DROP TABLE left_behind").await.unwrap();
    assert_eq!(item(&client, "roles").await, "warning: members: acts of pgmask_refresher");
    client.batch_execute("DROP ROLE acts").await.unwrap();
    cluster.apply_file("health", "05_dashboards.sql").unwrap();
    assert_eq!(item(&client, "roles").await, made);

    let alone = "ok: pgmask_writer has no member and is a member of no role";
    assert_eq!(item(&client, "writer").await, alone);
    client
        .batch_execute(
            "CREATE ROLE counts_logins; GRANT counts_logins TO pgmask_writer;
             CREATE ROLE borrows; GRANT pgmask_writer TO borrows; CREATE ROLE friend LOGIN; GRANT borrows TO friend",
        )
        .await
        .unwrap();
    let both = "warning: pgmask_writer has the rights of counts_logins; may be used by borrows, friend";
    assert_eq!(item(&client, "writer").await, both);
    client.batch_execute("DROP ROLE counts_logins, borrows, friend").await.unwrap();
    assert_eq!(item(&client, "writer").await, alone);
    client.batch_execute("ALTER ROLE pgmask_writer RENAME TO renamed").await.unwrap();
    assert_eq!(item(&client, "writer").await, "failed: there is no role pgmask_writer");
    client.batch_execute("ALTER ROLE renamed RENAME TO pgmask_writer").await.unwrap();
}

/// The owner of the login table can lock it, or put a view in its place that never ends.
#[tokio::test]
async fn the_owner_of_the_login_table_can_not_make_monitoring_wait() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("health_waits").await.unwrap();
    admin
        .batch_execute("CREATE ROLE owner LOGIN; ALTER TABLE user_logins OWNER TO owner; GRANT ALL ON SCHEMA public TO owner")
        .await
        .unwrap();
    let owner = cluster.connect_as("owner", "health_waits").await.unwrap();
    owner.batch_execute("BEGIN; LOCK TABLE user_logins").await.unwrap();
    admin.batch_execute("SET statement_timeout = '60s'").await.unwrap();
    assert_eq!(item(&admin, "older_tokens").await, "failed: SQLSTATE 55P03");
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.health").await, 10);
    owner
        .batch_execute(
            "ROLLBACK; ALTER TABLE user_logins RENAME TO real;
             CREATE VIEW user_logins AS SELECT pg_sleep(1000)::text AS masked_ip, '' AS masked_device_id",
        )
        .await
        .unwrap();
    assert_eq!(item(&admin, "older_tokens").await, "failed: SQLSTATE 42809");
}

#[tokio::test]
async fn monitoring_and_operators_may_read_it_and_no_other_role() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("health_rights").await.unwrap();
    for (role, group) in
        [("watches", "pg_monitor"), ("operates", "pgmask_operator"), ("asks", "pgmask_analyst")]
    {
        admin.batch_execute(&format!("CREATE ROLE {role} LOGIN; GRANT {group} TO {role}")).await.unwrap();
        let client = cluster.connect_as(role, "health_rights").await.unwrap();
        if role == "asks" {
            let error = client.batch_execute("TABLE pgmask.health").await.unwrap_err();
            assert!(message(&error).starts_with("42501 "));
            continue;
        }
        assert_eq!(count(&client, "SELECT count(*) FROM pgmask.health").await, 10, "{role}");
        let secrets = "SELECT count(*) FROM pgmask.health WHERE concat(value, hint) LIKE '%/%keyring%'";
        assert_eq!(count(&client, secrets).await, 0, "no path is shown");
        assert!(client.batch_execute("TABLE pgmask.quarantine").await.is_err());
    }
}
