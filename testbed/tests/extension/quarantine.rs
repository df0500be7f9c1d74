//! What can't be taken in is kept, sealed; it is taken in once the cause is gone, and shown to nobody
//! who does not say why.

use crate::common::{cluster, count, ingest, message, texts, unseal};
use tokio::task::JoinSet;
use tokio_postgres::Client;

async fn replay(client: &Client, reason: Option<&str>) -> (i64, i64) {
    let sql = "SELECT inserted, kept FROM pgmask.replay_quarantine($1)";
    let row = client.query_one(sql, &[&reason]).await.unwrap_or_else(|error| panic!("{error:?}"));
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn what_passes_is_taken_in_and_the_rest_is_kept() {
    let client = cluster().await.database("replayed").await.unwrap();
    client
        .batch_execute("ALTER TABLE user_logins ADD CONSTRAINT no_zz CHECK (locale <> 'ZZ')")
        .await
        .unwrap();
    let long = format!(r#"{{"user_id":"long","device_type":"{}"}}"#, "x".repeat(40));
    let messages = [
        ("1", r#"{"user_id":"zz","locale":"ZZ","ip":"192.0.2.1"}"#),
        ("2", &long),
        ("3", "no json"),
        ("4", r#"{"user_id":"good"}"#),
        ("5", ""),
    ];
    assert_eq!(ingest(&client, &messages).await, [1, 0, 4]);
    assert_eq!(replay(&client, None).await, (0, 4));

    client
        .batch_execute("DROP SCHEMA logins CASCADE; ALTER TABLE user_logins DROP CONSTRAINT no_zz, ALTER device_type TYPE text")
        .await
        .unwrap();
    assert_eq!(replay(&client, Some("no such reason")).await, (0, 0));
    assert_eq!(replay(&client, Some("rejected:23514")).await, (1, 0));
    assert_eq!(replay(&client, None).await, (1, 2));
    assert_eq!(replay(&client, None).await, (0, 2));
    let rows = "SELECT user_id || ' ' || create_date FROM user_logins ORDER BY 1";
    assert_eq!(texts(&client, rows).await, ["good 2026-11-20", "long 2026-11-20", "zz 2026-11-20"]);
    let masked = "SELECT count(*) FROM user_logins WHERE masked_ip = mask_pii('192.0.2.1')";
    assert_eq!(count(&client, masked).await, 1);
    // It was taken in, so it is a duplicate when it comes again.
    assert_eq!(ingest(&client, &messages).await, [0, 5, 0]);
    assert_eq!(texts(&client, "SELECT message_id FROM pgmask.quarantine ORDER BY 1").await, ["3", "5"]);
}

#[tokio::test]
async fn the_reason_is_that_of_the_last_try() {
    let client = cluster().await.database("reasons").await.unwrap();
    client.batch_execute("ALTER TABLE user_logins ADD CONSTRAINT c CHECK (locale <> 'ZZ')").await.unwrap();
    ingest(&client, &[("1", r#"{"user_id":"zz","locale":"ZZ"}"#)]).await;
    client
        .batch_execute("DROP SCHEMA logins CASCADE; ALTER TABLE user_logins DROP CONSTRAINT c, ALTER locale TYPE varchar(1) USING NULL")
        .await
        .unwrap();
    assert_eq!(replay(&client, None).await, (0, 1));
    let summary = "SELECT reason || ' ' || messages FROM pgmask.quarantine_summary WHERE day = (now() AT TIME ZONE 'UTC')::date";
    assert_eq!(texts(&client, summary).await, ["too_long:locale 1"]);
}

/// A sent time that could not be true: the day the message came counts, not that of the replay.
#[tokio::test]
async fn a_replayed_login_has_the_date_it_would_have_had() {
    let client = cluster().await.database("replay_date").await.unwrap();
    client.batch_execute("ALTER TABLE user_logins ADD CONSTRAINT c CHECK (false)").await.unwrap();
    for (id, sent_at) in [("1", "2026-11-03 23:59:59+00"), ("2", "infinity")] {
        crate::common::try_ingest(&client, &[(id, r#"{"user_id":"u"}"#)], sent_at).await.unwrap();
    }
    client.batch_execute("ALTER TABLE user_logins DROP CONSTRAINT c").await.unwrap();
    let came =
        texts(&client, "SELECT (quarantined_at AT TIME ZONE 'UTC')::date::text FROM pgmask.quarantine").await;
    assert_eq!(replay(&client, None).await, (2, 0));
    let days = texts(&client, "SELECT create_date::text FROM user_logins ORDER BY 1").await;
    assert_eq!(days, ["2026-11-03", &came[1]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_at_once_take_each_message_once() {
    const MESSAGES: i64 = 700;
    let cluster = cluster().await;
    let admin = cluster.database("replayed_at_once").await.unwrap();
    admin.batch_execute("ALTER TABLE user_logins ADD CONSTRAINT c CHECK (false)").await.unwrap();
    let messages: Vec<_> = (0..MESSAGES).map(|n| (n.to_string(), format!(r#"{{"user_id":{n}}}"#))).collect();
    assert_eq!(ingest(&admin, &messages).await, [0, 0, MESSAGES]);
    // One row stays bad: it is among good ones, and kept.
    admin
        .batch_execute("DROP SCHEMA logins CASCADE; ALTER TABLE user_logins DROP CONSTRAINT c, ADD CHECK (user_id <> '333')")
        .await
        .unwrap();
    let mut replays = JoinSet::new();
    for _ in 0..4 {
        let client = cluster.connect("replayed_at_once").await.unwrap();
        replays.spawn(async move { replay(&client, None).await });
    }
    let done = replays.join_all().await;
    assert_eq!(done.iter().map(|(inserted, _)| inserted).sum::<i64>(), MESSAGES - 1, "{done:?}");
    assert_eq!(count(&admin, "SELECT count(DISTINCT user_id) FROM user_logins").await, MESSAGES - 1);
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, MESSAGES - 1);
    assert_eq!(texts(&admin, "SELECT reason FROM pgmask.quarantine").await, ["rejected:23514"]);
}

/// Any bit, the row's identity, another row's body: an error, not a row, and not a word of it.
#[tokio::test]
async fn a_tampered_body_is_an_error_and_no_row() {
    let client = cluster().await.database("tampered").await.unwrap();
    client.batch_execute("ALTER TABLE user_logins ADD CONSTRAINT c CHECK (false)").await.unwrap();
    let messages = [("1", r#"{"user_id":"canary one"}"#), ("2", r#"{"user_id":"canary two"}"#)];
    ingest(&client, &messages).await;
    client
        .batch_execute(
            "ALTER TABLE user_logins DROP CONSTRAINT c; CREATE TABLE saved AS TABLE pgmask.quarantine",
        )
        .await
        .unwrap();
    let first = "(SELECT min(id) FROM saved)";
    for tampering in [
        "sealed_body = set_byte(sealed_body, octet_length(sealed_body) - 1, get_byte(sealed_body, octet_length(sealed_body) - 1) # 1)",
        "sealed_body = set_byte(sealed_body, 0, 2)",
        "sealed_body = set_byte(sealed_body, 4, 2)",
        "sealed_body = set_byte(sealed_body, 7, get_byte(sealed_body, 7) # 128)",
        "sealed_body = substr(sealed_body, 1, 20)",
        "sealed_body = ''",
        "sealed_body = (SELECT sealed_body FROM saved WHERE message_id = '2')",
        "message_id = '3'",
        "sent_at = sent_at + interval '1 microsecond'",
        "sent_at = NULL",
        "quarantined_at = quarantined_at - interval '1 day'",
        "id = DEFAULT",
    ] {
        let sql = format!("UPDATE pgmask.quarantine SET {tampering} WHERE id = {first}");
        client.batch_execute(&sql).await.unwrap();
        let error = message(&client.batch_execute("SELECT pgmask.replay_quarantine()").await.unwrap_err());
        assert!(
            error.contains("of the quarantine can't be opened") && !error.contains("canary"),
            "{tampering}: {error}"
        );
        assert_eq!(count(&client, "SELECT count(*) FROM user_logins").await, 0, "{tampering}");
        let id = count(&client, "SELECT id FROM pgmask.quarantine WHERE message_id <> '2'").await;
        let error = message(&unseal(&client, Some(id), Some("test")).await.unwrap_err());
        assert!(error.contains("can't be opened") && !error.contains("canary"), "{tampering}: {error}");
        client
            .batch_execute("TRUNCATE pgmask.quarantine; INSERT INTO pgmask.quarantine OVERRIDING SYSTEM VALUE TABLE saved")
            .await
            .unwrap();
    }
    assert_eq!(replay(&client, None).await, (2, 0));
}

#[tokio::test]
async fn a_body_is_shown_to_the_recoverer_and_it_is_known_who_saw_it() {
    let cluster = cluster().await;
    let admin = cluster.database("unsealed").await.unwrap();
    admin
        .batch_execute(
            "DROP ROLE IF EXISTS opens_mail; CREATE ROLE opens_mail LOGIN IN ROLE pgmask_recoverer",
        )
        .await
        .unwrap();
    let bodies = ["canary: no json, ä 😀", "", "[\"canary\"]"];
    for body in bodies {
        assert_eq!(ingest(&admin, &[(body, body)]).await, [0, 0, 1]);
    }
    let large = "canary ".repeat(150_000);
    assert_eq!(ingest(&admin, &[("large", &large)]).await, [0, 0, 1]);
    let recoverer = cluster.connect_as("opens_mail", "unsealed").await.unwrap();
    let open = async |id: Option<i64>, reason: Option<&str>| {
        let opened = unseal(&recoverer, id, reason).await;
        opened.map(|body| String::from_utf8(body).unwrap()).map_err(|error| message(&error))
    };
    for (id, body) in (1..).zip(bodies.into_iter().chain([large.as_str()])) {
        assert_eq!(open(Some(id), Some("ticket 4711\nforged line")).await.as_deref(), Ok(body));
    }
    let kept = texts(
        &admin,
        "SELECT concat_ws(' ', login_role, acting_role, action, quarantine_id, reason) FROM pgmask.audit
         WHERE done_at > now() - interval '1 minute' ORDER BY id",
    )
    .await;
    assert_eq!(kept.len(), 4);
    assert_eq!(kept[0], "opens_mail opens_mail unseal_quarantine 1 ticket 4711\nforged line");
    let log = cluster.log();
    let line = "pg_mask: role \"opens_mail\" (logged in as \"opens_mail\") opens message 1 of the quarantine; reason: ticket 4711\\nforged line";
    assert!(log.contains(line));
    assert!(!log.contains("canary: no json"), "the log shows a body");

    // Without a reason, or for what is not there, nothing is shown.
    for reason in [None, Some(""), Some(" \n")] {
        let error = open(Some(1), reason).await.unwrap_err();
        assert!(error.starts_with("22023 ") && error.contains("second argument"), "{error}");
    }
    for id in [None, Some(0), Some(-1), Some(i64::MAX)] {
        let error = open(id, Some("x")).await.unwrap_err();
        assert!(error.starts_with("P0002 there is no message"), "{error}");
    }
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.audit").await, 4);

    // Somebody who acts as another is named twice.
    admin.batch_execute("SET ROLE opens_mail").await.unwrap();
    unseal(&admin, Some(1), Some("as another")).await.unwrap();
    admin.batch_execute("RESET ROLE").await.unwrap();
    let last = "SELECT login_role || ' ' || acting_role FROM pgmask.audit ORDER BY id DESC LIMIT 1";
    assert_eq!(texts(&admin, last).await, ["postgres opens_mail"]);
}
