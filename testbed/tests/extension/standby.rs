//! `mask_pii` works on a hot standby that has the keyring.

use testbed::cluster::Cluster;

#[tokio::test]
async fn a_hot_standby_masks_like_its_primary() {
    let primary = Cluster::start(&["wal_level = replica", "max_wal_senders = 4"]).await.unwrap();
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
}
