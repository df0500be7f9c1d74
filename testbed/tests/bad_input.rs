//! Whatever comes as a message, its neighbours are taken in, and it is kept with a reason.

use crate::common::{Way, counts, message};

#[tokio::test]
async fn bad_messages_are_quarantined_and_neighbours_taken_in() {
    let way = Way::new("bad_messages").await;
    let long = "x".repeat(33);
    let cases: Vec<(String, Option<&str>)> = vec![
        (r#"{"user_id":"good"}"#.into(), None),
        (r#"{"foo": "oops_wrong_msg_type", "bar": "123"}"#.into(), Some("missing:user_id")),
        (r#"{"user_id":"cut"#.into(), Some("invalid_json")),
        ("plain words".into(), Some("invalid_json")),
        (r#"[{"user_id":"in an array"}]"#.into(), Some("not_an_object")),
        (" ".into(), Some("invalid_json")),
        (r#"{"user_id":"nul \u0000"}"#.into(), Some("invalid:user_id")),
        (r#"{"user_id":"ä","ip":"\u0000"}"#.into(), None),
        (format!(r#"{{"user_id":"a","locale":"{long}"}}"#), Some("too_long:locale")),
        (format!(r#"{{"user_id":"a","device_type":"{long}"}}"#), Some("too_long:device_type")),
        (format!(r#"{{"user_id":"{}"}}"#, "ä".repeat(128)), None),
        (format!(r#"{{"user_id":"{}"}}"#, "ä".repeat(129)), Some("too_long:user_id")),
        (r#"{"user_id":"a","app_version":"1.1000.0"}"#.into(), Some("invalid:app_version")),
    ];
    let bodies: Vec<String> = cases.iter().map(|(body, _)| body.clone()).collect();
    way.queue.send(&bodies).await.unwrap();

    let good = cases.iter().filter(|(_, reason)| reason.is_none()).count() as u64;
    let all = cases.len() as u64;
    assert_eq!(counts(&way.drained().await), [all, good, 0, all - good, all]);
    assert_eq!(way.queue.depth().await.unwrap(), [0, 0, 0]);

    let rows = way
        .database
        .query("SELECT reason FROM pg_mask.quarantine ORDER BY reason COLLATE \"C\"", &[])
        .await
        .unwrap();
    let mut expected: Vec<&str> = cases.iter().filter_map(|(_, reason)| *reason).collect();
    expected.sort_unstable();
    assert_eq!(rows.iter().map(|row| row.get::<_, &str>(0)).collect::<Vec<_>>(), expected);
    // An empty body, and none at all, which SQS does not send.
    let sql = "SELECT quarantined FROM ingest_login_batch(ARRAY['e', 'n'], ARRAY['', NULL], ARRAY[now(), NULL], ARRAY[1, NULL])";
    assert_eq!(way.count(sql).await, 2);
}

#[tokio::test]
async fn rows_that_the_table_refuses_are_quarantined_alone() {
    let way = Way::new("rows_refused").await;
    way.database
        .batch_execute("ALTER TABLE user_logins ADD PRIMARY KEY (user_id), ADD CHECK (locale <> 'XX')")
        .await
        .unwrap();
    let bodies: Vec<String> = (0..50)
        .map(|n| match n {
            7 | 31 => r#"{"user_id":"twice"}"#.to_owned(),
            20 => r#"{"user_id":"u20","locale":"XX"}"#.to_owned(),
            _ => format!(r#"{{"user_id":"u{n}"}}"#),
        })
        .collect();
    way.queue.send(&bodies).await.unwrap();
    assert_eq!(counts(&way.drained().await), [50, 48, 0, 2, 50]);
    let reasons =
        "SELECT count(*) FROM pg_mask.quarantine WHERE reason IN ('rejected:23505', 'rejected:23514')";
    assert_eq!(way.count(reasons).await, 2);
}

#[tokio::test]
async fn ingest_login_takes_one_in_or_says_why_not() {
    let way = Way::new("ingest_login").await;
    let run = async |payload: &str, date: &str| {
        let sql = format!("SELECT ingest_login('{payload}', {date})");
        way.database.batch_execute(&sql).await.map_err(|error| message(&error))
    };
    run(r#"{"user": {"id": "u"}, "ip": "192.0.2.1", "app_version": 2.3}"#, "'2026-01-02'").await.unwrap();
    run(r#"{"user_id": true}"#, "NULL").await.unwrap();
    let rows = "SELECT count(*) FROM user_logins WHERE (user_id, app_version, create_date) = ('u', 2003000, '2026-01-02')
                OR (user_id, create_date) = ('true', (now() AT TIME ZONE 'UTC')::date)";
    assert_eq!(way.count(rows).await, 2);
    let error = run(r#"{"ip": "192.0.2.1"}"#, "NULL").await.unwrap_err();
    assert!(
        error.contains("22023 the login was refused: missing:user_id") && !error.contains("192"),
        "{error}"
    );
    let error = run("[]", "NULL").await.unwrap_err();
    assert!(error.contains("not_an_object"), "{error}");
    let error =
        way.database.batch_execute("SELECT ingest_login(NULL)").await.map_err(|error| message(&error));
    assert!(error.unwrap_err().contains("not_an_object"));
}

#[tokio::test]
async fn a_batch_of_the_wrong_shape_is_an_error() {
    let way = Way::new("wrong_shape").await;
    for arguments in [
        "NULL, '{}', '{}', '{}'",
        "'{a}', '{}', '{}', '{}'",
        "'{a}', '{b}', ARRAY[now()], '{1,2}'",
        "'{NULL}', '{b}', ARRAY[now()], '{1}'",
    ] {
        let sql = format!("SELECT * FROM ingest_login_batch({arguments})");
        let error = message(&way.database.query(&sql, &[]).await.unwrap_err());
        assert!(error.starts_with("2202E") && error.contains("four arrays"), "{arguments}: {error}");
    }
}

#[tokio::test]
async fn sent_times_from_nonsense_clocks_give_a_sane_date() {
    let way = Way::new("nonsense_clocks").await;
    let sql = "SELECT inserted FROM ingest_login_batch(
        ARRAY['1', '2', '3', '4', '5', '6', '7'], array_fill('{\"user_id\":1}'::text, ARRAY[7]),
        ARRAY[NULL, 'epoch', '-infinity', 'infinity', '4714-11-24 BC', '294276-12-31', now() + '2 days']::timestamptz[],
        array_fill(1, ARRAY[7]))";
    assert_eq!(way.count(sql).await, 7);
    let today = "SELECT count(*) FROM user_logins WHERE create_date = (now() AT TIME ZONE 'UTC')::date";
    assert_eq!(way.count(today).await, 7);
    let again = sql.replace("inserted", "duplicate");
    assert_eq!(way.count(&again).await, 7);
}
