//! Whatever comes as a message, its neighbours are taken in, and it is kept with a reason.

use crate::common::{cluster, count, message};

#[tokio::test]
async fn ingest_login_takes_one_in_or_says_why_not() {
    let client = cluster().await.database("ingest_login").await.unwrap();
    let run = async |payload: &str, date: &str| {
        let sql = format!("SELECT ingest_login('{payload}', {date})");
        client.batch_execute(&sql).await.map_err(|error| message(&error))
    };
    run(r#"{"user": {"id": "u"}, "ip": "192.0.2.1", "app_version": 2.3}"#, "'2026-01-02'").await.unwrap();
    run(r#"{"user_id": true}"#, "NULL").await.unwrap();
    let rows = "SELECT count(*) FROM user_logins WHERE (user_id, app_version, create_date) = ('u', 2003000, '2026-01-02')
                OR (user_id, create_date) = ('true', (now() AT TIME ZONE 'UTC')::date)";
    assert_eq!(count(&client, rows).await, 2);
    let error = run(r#"{"ip": "192.0.2.1"}"#, "NULL").await.unwrap_err();
    assert!(
        error.contains("22023 the login was refused: missing:user_id") && !error.contains("192"),
        "{error}"
    );
    let error = run("[]", "NULL").await.unwrap_err();
    assert!(error.contains("not_an_object"), "{error}");
    let error = client.batch_execute("SELECT ingest_login(NULL)").await.map_err(|error| message(&error));
    assert!(error.unwrap_err().contains("not_an_object"));
}

#[tokio::test]
async fn a_batch_of_the_wrong_shape_is_an_error() {
    let client = cluster().await.database("wrong_shape").await.unwrap();
    for arguments in [
        "NULL, '{}', '{}', '{}'",
        "'{a}', '{}', '{}', '{}'",
        "'{a}', '{b}', ARRAY[now()], '{1,2}'",
        "'{NULL}', '{b}', ARRAY[now()], '{1}'",
    ] {
        let sql = format!("SELECT * FROM pgmask.ingest_login_batch({arguments})");
        let error = message(&client.query(&sql, &[]).await.unwrap_err());
        assert!(error.starts_with("2202E") && error.contains("four arrays"), "{arguments}: {error}");
    }
}

#[tokio::test]
async fn sent_times_from_nonsense_clocks_give_a_sane_date() {
    let client = cluster().await.database("nonsense_clocks").await.unwrap();
    let sql = "SELECT inserted FROM pgmask.ingest_login_batch(
        ARRAY['1', '2', '3', '4', '5', '6', '7'], array_fill('{\"user_id\":1}'::text, ARRAY[7]),
        ARRAY[NULL, 'epoch', '-infinity', 'infinity', '4714-11-24 BC', '294276-12-31', now() + '2 days']::timestamptz[],
        array_fill(1, ARRAY[7]))";
    assert_eq!(count(&client, sql).await, 7);
    let today = "SELECT count(*) FROM user_logins WHERE create_date = (now() AT TIME ZONE 'UTC')::date";
    assert_eq!(count(&client, today).await, 7);
    let again = sql.replace("inserted", "duplicate");
    assert_eq!(count(&client, &again).await, 7);
}
