//! `mask_pii` works on a hot standby that has the keyring.

use crate::common::{count, message, texts, write_keyring};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;

#[tokio::test]
async fn a_hot_standby_masks_like_its_primary() {
    let mut primary = Cluster::start(&["wal_level = replica", "max_wal_senders = 4"]).await.unwrap();
    let client = primary.database("logins").await.unwrap();
    let token: String = client.query_one("SELECT mask_pii('203.0.113.7')", &[]).await.unwrap().get(0);
    let standby = primary.standby().await.unwrap();
    let reader = standby.connect("logins").await.unwrap();
    let recovering: bool = reader.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap().get(0);
    assert!(recovering);
    let again: String = reader.query_one("SELECT mask_pii('203.0.113.7')", &[]).await.unwrap().get(0);
    assert_eq!(again, token);
    // It can't write, and says so as a server does that may be a primary again: class 25.
    let sql =
        "SELECT * FROM pgmask.ingest_login_batch('{a}', '{\"{\\\"user_id\\\":1}\"}', ARRAY[now()], '{1}')";
    let error = reader.query(sql, &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25006");
    // Nor does it give values back, since it could not write that down; the audit can be looked at.
    for sql in ["CALL pgmask.recover_pii($1, 'x')", "CALL pgmask.forget($1, 'x')"] {
        let error = reader.query(sql, &[&token]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "25006", "{sql}");
    }
    let error = reader.batch_execute("CALL pgmask.remask('pgmask.vault')").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25006");
    assert_eq!(count(&reader, "SELECT count(*) FROM pgmask.verify_audit()").await, 0);
    assert_eq!(
        texts(&reader, "SELECT item || value FROM pgmask.health WHERE state = 'failed'").await,
        [""; 0]
    );
}

/// A standby changes over where its replay comes to the rotation, and masks nothing without the key.
#[tokio::test]
async fn a_rotation_reaches_a_standby_with_its_wal() {
    let mut primary = Cluster::start(&["wal_level = replica", "max_wal_senders = 4"]).await.unwrap();
    let client = primary.database("rotated").await.unwrap();
    let standby = primary.standby().await.unwrap();
    let reader = standby.connect("rotated").await.unwrap();
    let keyring = |cluster: &Cluster| cluster.data().join("pg_mask.keyring");
    let sql = "SELECT mask_pii('203.0.113.7')";
    let rotated = async |generation: i64| {
        let sql = format!("SELECT count(*) FROM pgmask.key_check WHERE generation = {generation}");
        wait_until("the rotation is replayed", || async { count(&reader, &sql).await == 1 }).await.unwrap();
    };

    // As it is meant to be: the key first, then the file, then the rotation.
    assert_eq!(count(&client, "SELECT pgmask.add_key()::bigint").await, 2);
    write_keyring(&keyring(&standby), &std::fs::read(keyring(&primary)).unwrap());
    let status = "SELECT state FROM pgmask.key_status() WHERE kind = 'mask' AND number = 2";
    assert_eq!(texts(&reader, status).await, ["waiting"]);
    client.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    rotated(2).await;
    assert_eq!(texts(&reader, sql).await, texts(&client, sql).await);

    // A key that the standby does not have.
    let error = message(&reader.simple_query("SELECT pgmask.rotate_key()").await.unwrap_err());
    assert!(error.starts_with("25006 "), "a standby makes no keys: {error}");
    client.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    rotated(3).await;
    let error = message(&reader.query(sql, &[]).await.unwrap_err());
    assert!(error.starts_with("F0000 the server's keyring has no generation 3"), "{error}");
    write_keyring(&keyring(&standby), &std::fs::read(keyring(&primary)).unwrap());
    assert_eq!(texts(&reader, sql).await, texts(&client, sql).await);
    assert!(texts(&reader, sql).await[0].starts_with("m3_"));
}
