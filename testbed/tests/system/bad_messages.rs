//! Whatever comes as a message, its neighbours are taken in, and it is kept with a reason.

use crate::common::{Way, cluster, count, counts};
use aws_sdk_sqs::types::{MessageSystemAttributeNameForSends, MessageSystemAttributeValue};
use testbed::emulator::Emulator;
use testbed::forwarder;
use testbed::queue::Queue;

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
        .query("SELECT reason FROM pgmask.quarantine ORDER BY reason COLLATE \"C\"", &[])
        .await
        .unwrap();
    let mut expected: Vec<&str> = cases.iter().filter_map(|(_, reason)| *reason).collect();
    expected.sort_unstable();
    assert_eq!(rows.iter().map(|row| row.get::<_, &str>(0)).collect::<Vec<_>>(), expected);
    let told = "SELECT count(*) FROM pgmask.quarantine
                WHERE receive_count = 1 AND sent_at BETWEEN now() - interval '10 minutes' AND now()";
    assert_eq!(way.count(told).await.cast_unsigned(), all - good, "what SQS says of a message comes with it");
    // An empty body, and none at all, which SQS does not send.
    let sql = "SELECT quarantined FROM pgmask.ingest_login_batch(ARRAY['e', 'n'], ARRAY['', NULL], ARRAY[now(), NULL], ARRAY[1, NULL])";
    assert_eq!(way.count(sql).await, 2);
}

/// Which trace a message belongs to is logged if it is quarantined, for who looks into it; what a sender puts there
/// instead is not.
#[tokio::test]
async fn the_trace_of_a_quarantined_message_is_logged_and_of_no_other() {
    let way = Way::new("traces").await;
    let trace = |n: u32| format!("Root=1-5759e988-{n:024x};Sampled=1");
    let no_trace = "Root=203.0.113.99".to_owned();
    for (body, trace) in [
        (r#"{"user_id":"good"}"#, trace(1)),
        ("bad", trace(2)),
        (r#"{"user_id":"good too"}"#, trace(3)),
        ("bad, and no trace", no_trace),
        ("also bad", trace(4)),
    ] {
        let header = MessageSystemAttributeValue::builder().data_type("String").string_value(trace);
        way.queue
            .client
            .send_message()
            .queue_url(&way.queue.url)
            .message_body(body)
            .message_system_attributes(
                MessageSystemAttributeNameForSends::AwsTraceHeader,
                header.build().unwrap(),
            )
            .send()
            .await
            .unwrap();
    }
    way.queue.send(&["bad without any".to_owned()]).await.unwrap();
    let ended = forwarder::run(way.drain().await).await.unwrap();
    assert_eq!(counts(&ended.summary), [6, 2, 0, 4, 6], "{}", ended.log);
    for (n, logged) in [(1, false), (2, true), (3, false), (4, true)] {
        assert_eq!(ended.log.contains(&trace(n)), logged, "{n}: {}", ended.log);
    }
    assert!(!ended.log.contains("203.0.113.99"), "{}", ended.log);
    let stored = "SELECT count(*) FROM pgmask.quarantine AS q WHERE q::text LIKE '%5759e988%'";
    assert_eq!(way.count(stored).await, 0);
}

/// SQS refuses a body with a NUL; not every server that speaks its protocol does. PostgreSQL has no such text.
#[tokio::test]
async fn a_nul_in_a_body_stops_no_other() {
    let cluster = cluster().await;
    let database = cluster.database("raw_nul").await.unwrap();
    let emulator = Emulator::rustack().await.unwrap();
    let queue = Queue::create(&emulator, "raw_nul").await.unwrap();
    let bodies = [
        r#"{"user_id":"good ä"}"#.to_owned(),
        "{\"user_id\":\"bad \0\"}".to_owned(),
        r#"{"user_id":"better"}"#.to_owned(),
    ];
    queue.send(&bodies).await.unwrap();
    let mut drain =
        forwarder::command(&emulator, "raw_nul", &cluster.url("pgmask_forwarder", "raw_nul")).unwrap();
    drain.arg("--drain");
    let ended = forwarder::run(drain).await.unwrap();
    assert_eq!(counts(&ended.summary), [3, 2, 0, 1, 3], "{}", ended.log);
    assert!(!ended.log.contains("traces"), "a field without a value: {}", ended.log);
    assert_eq!(
        count(&database, "SELECT count(*) FROM user_logins WHERE user_id IN ('good ä', 'better')").await,
        2
    );
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
        "SELECT count(*) FROM pgmask.quarantine WHERE reason IN ('rejected:23505', 'rejected:23514')";
    assert_eq!(way.count(reasons).await, 2);
}
