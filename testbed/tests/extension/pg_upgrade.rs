//! After pg_upgrade everything goes on where the old server stopped: tokens, the ledger, the quarantine, the vault,
//! the audit, and what keeps messages out of the server's log.

use super::objects::{difference, objects};
use crate::common::{count, ingest, message, texts, unseal, unseal_all, write_keyring};
use testbed::cluster::Cluster;
use testbed::guardian::free_port;
use testbed::installation::{self, output};
use tokio_postgres::Client;

/// The version to go to.
const NEWEST: u32 = 18;
const DATABASE: &str = "upgraded";
const MESSAGES: [(&str, &str); 3] = [
    ("00000000-0000-4000-8000-000000000001", r#"{"user_id":"u","ip":"203.0.113.7","device_id":"device"}"#),
    ("00000000-0000-4000-8000-000000000002", r#"{"user_id":"v","ip":"203.0.113.8"}"#),
    ("no UUID", "nonsense"),
];
/// Of the whole server: which settings its roles have.
const ROLE_SETTINGS: &str =
    "SELECT concat_ws(' ', r.rolname, s.setdatabase, setting) FROM pg_db_role_setting s
    JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS setting ORDER BY 1";
const MEMBERS: &str = "SELECT concat_ws(' ', roleid::regrole, member::regrole) FROM pg_auth_members
    WHERE roleid >= 16384 ORDER BY 1";
/// All that is stored, as it is.
const STORED: &str = "SELECT row FROM (
    SELECT 'login ' || to_jsonb(t)::text FROM user_logins t
    UNION ALL SELECT 'ledger ' || tableoid::regclass || to_jsonb(t)::text FROM pgmask.ledger t
    UNION ALL SELECT 'ledger slot ' || to_jsonb(t)::text FROM pgmask.ledger_slot t
    UNION ALL SELECT 'quarantine ' || to_jsonb(t)::text FROM pgmask.quarantine t
    UNION ALL SELECT 'vault ' || to_jsonb(t)::text FROM pgmask.vault t
    UNION ALL SELECT 'audit ' || to_jsonb(t)::text FROM pgmask.audit t
    UNION ALL SELECT 'end of the audit ' || to_jsonb(t)::text FROM pgmask.audit_end t
    UNION ALL SELECT 'key ' || to_jsonb(t)::text FROM pgmask.key_check t
    UNION ALL SELECT 'database ' || to_jsonb(t)::text FROM pgmask.database_id t
    ) AS stored (row) ORDER BY 1";

/// A server that has been used: two generations of keys, a vault, a quarantine and an audit.
async fn used(keyring: &str) -> (Cluster, String) {
    let cluster = Cluster::start(&[keyring, "pgmask.vault = on"]).await.unwrap();
    let client = cluster.database(DATABASE).await.unwrap();
    assert_eq!(ingest(&client, &MESSAGES[..1]).await, [1, 0, 0]);
    client.batch_execute("SELECT pgmask.rotate_key(), pgmask.rotate_seal_key()").await.unwrap();
    assert_eq!(ingest(&client, &MESSAGES).await, [1, 1, 1]);
    unseal(&client, Some(1), Some("before the upgrade")).await.unwrap();
    let token = texts(&client, "SELECT mask_pii('203.0.113.7')").await.remove(0);
    assert!(token.starts_with("m2_"), "{token}");
    (cluster, token)
}

/// Debian's PostgreSQL 15.20 keeps an option named pg_attver with the columns of every table. PostgreSQL 18 does not
/// know it and refuses the table, whether or not pg_mask is there.
async fn clear_attver(cluster: &Cluster) {
    let postgres = cluster.connect("postgres").await.unwrap();
    let databases = "SELECT datname::text FROM pg_database WHERE datallowconn";
    for database in texts(&postgres, databases).await {
        let client = cluster.connect(&database).await.unwrap();
        let clear = "UPDATE pg_attribute SET attoptions = NULL WHERE attoptions::text LIKE '%pg_attver%'";
        client.batch_execute(clear).await.unwrap();
    }
}

fn pg_upgrade(old: &Cluster, new: &Cluster) {
    // For its sockets and the script that removes the old cluster.
    let folder = new.data().join("upgrade");
    std::fs::create_dir(&folder).unwrap();
    if let Some(user) = new.installation().user {
        std::os::unix::fs::chown(&folder, Some(user.uid), Some(user.gid)).unwrap();
    }
    let mut upgrade = new.command("pg_upgrade");
    upgrade.current_dir(&folder).arg("--username=postgres").arg("--socketdir").arg(&folder);
    for (which, cluster) in [("old", old), ("new", new)] {
        upgrade.arg(format!("--{which}-bindir={}", cluster.installation().bin().display()));
        upgrade.arg(format!("--{which}-datadir={}", cluster.data().display()));
        upgrade.arg(format!("--{which}-port={}", free_port().unwrap()));
    }
    output(&mut upgrade).unwrap_or_else(|error| {
        let logs = output(
            std::process::Command::new("sh")
                .current_dir(new.data())
                .args(["-c", "find pg_upgrade_output.d -type f -exec tail -n 20 '{}' +"]),
        );
        panic!("{error}\n{}", logs.unwrap_or_default());
    });
}

async fn recovered(client: &Client, token: &str) -> String {
    let row = client.query_one("CALL pgmask.recover_pii($1, 'after the upgrade')", &[&token]).await.unwrap();
    row.get(0)
}

#[tokio::test]
async fn a_newer_server_goes_on_where_the_old_one_stopped() {
    if installation::shared().unwrap().major == NEWEST {
        return; // there is none to go to
    }
    // Outside the data directory, as the operations guide has it: pg_upgrade doesn't copy what it does not know.
    let folder = tempfile::tempdir().unwrap();
    let user = installation::shared().unwrap().user;
    if let Some(user) = user {
        std::os::unix::fs::chown(folder.path(), Some(user.uid), Some(user.gid)).unwrap();
    }
    let keyring = folder.path().join("keyring");
    let setting = format!("pgmask.keyring_file = '{}'", keyring.display());

    let (mut old, token) = used(&setting).await;
    let client = old.connect(DATABASE).await.unwrap();
    let stored = texts(&client, STORED).await;
    assert!(stored.len() > 40, "{stored:?}");
    let [settings, members] = [texts(&client, ROLE_SETTINGS).await, texts(&client, MEMBERS).await];
    assert!(settings.iter().any(|setting| setting == "pgmask_forwarder 0 log_parameter_max_length=0"));
    clear_attver(&old).await;
    drop(client);
    old.stop("INT").unwrap();

    let newest = installation::of(NEWEST).unwrap();
    // PostgreSQL 18 turns checksums on where nothing else is said; both clusters have to agree.
    let mut new =
        Cluster::stopped(newest, &["--no-data-checksums"], &[&setting, "pgmask.vault = on"]).unwrap();
    pg_upgrade(&old, &new);
    drop(old);

    // Without its keyring nothing is masked, and nothing is made in its place.
    let keys = std::fs::read(&keyring).unwrap();
    std::fs::remove_file(&keyring).unwrap();
    new.restart().await.unwrap();
    let client = new.connect(DATABASE).await.unwrap();
    let error = message(&client.query("SELECT mask_pii('203.0.113.7')", &[]).await.unwrap_err());
    assert!(error.starts_with("F0000"), "{error}");
    assert!(!keyring.exists());
    write_keyring(&keyring, &keys);

    assert_eq!(texts(&client, STORED).await, stored);
    assert_eq!(texts(&client, ROLE_SETTINGS).await, settings);
    assert_eq!(texts(&client, MEMBERS).await, members);
    let bad_keys = "SELECT concat_ws(' ', kind, number, state) FROM pgmask.key_status() WHERE state <> 'ok'";
    assert_eq!(texts(&client, bad_keys).await, [""; 0]);
    assert_eq!(texts(&client, "SELECT mask_pii('203.0.113.7')").await, [&token[..]]);
    // The ledger knows each message, the ones in the quarantine included.
    assert_eq!(ingest(&client, &MESSAGES).await, [0, 3, 0]);
    assert_eq!(ingest(&client, &[("new", r#"{"user_id":"w","ip":"203.0.113.7"}"#)]).await, [1, 0, 0]);
    assert_eq!(unseal_all(&client).await, [b"nonsense"]);
    assert_eq!(recovered(&client, &token).await, "203.0.113.7");
    assert_eq!(count(&client, "SELECT count(*) FROM pgmask.verify_audit()").await, 0);
    for sql in ["SELECT pgmask.maintain()", "CALL pgmask.remask('user_logins')"] {
        client.batch_execute(sql).await.unwrap();
    }
    let same = "SELECT count(*) FROM user_logins WHERE masked_ip = mask_pii('203.0.113.7')";
    assert_eq!(count(&client, same).await, 2);

    // What sql/ sets up is set up anew, and all is as it is in a database that was made there.
    new.apply_sql(DATABASE).unwrap();
    let fresh = new.database("fresh").await.unwrap();
    assert_eq!(difference(&objects(&client).await, &objects(&fresh).await), [""; 0]);
}
