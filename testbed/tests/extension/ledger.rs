//! The ledger gives each message its effect once.

use crate::common::{cluster, count};

#[tokio::test]
async fn a_message_twice_in_a_batch_is_taken_in_once() {
    let client = cluster().await.database("twice_in_a_batch").await.unwrap();
    let sql = "SELECT inserted, duplicate, quarantined FROM ingest_login_batch(
        ARRAY['b', 'a', 'b', 'c', 'c'], ARRAY['{\"user_id\":1}', '{\"user_id\":2}', '{\"user_id\":3}', '', ''],
        array_fill('2026-11-20 23:59:59+00'::timestamptz, ARRAY[5]), array_fill(1, ARRAY[5]))";
    let row = client.query_one(sql, &[]).await.unwrap();
    assert_eq!([0, 1, 2].map(|at| row.get::<_, i64>(at)), [2, 2, 1]);
    let row = client.query_one(sql, &[]).await.unwrap();
    assert_eq!([0, 1, 2].map(|at| row.get::<_, i64>(at)), [0, 5, 0]);
    let rows = "SELECT count(*) FROM user_logins WHERE user_id IN ('1', '2') AND create_date = '2026-11-20'";
    assert_eq!(count(&client, rows).await, 2);
}
