//! What of an event ends in which column.

use crate::common::{cluster, ingest, keyring, texts, token};

/// A row: user_id, device_type, ip, device_id, locale, app_version.
type Row = [Option<&'static str>; 6];

const fn user(user_id: &'static str) -> Row {
    [Some(user_id), None, None, None, None, None]
}

const FULL: Row = [Some("u"), Some("ios"), Some("192.0.2.1"), Some("d-1"), Some("de_DE"), Some("2003000")];

const CASES: &[(&str, Row)] = &[
    // flat, nested, both
    (
        r#"{"user_id":"u","device_type":"ios","ip":"192.0.2.1","device_id":"d-1","locale":"de_DE","app_version":"2.3.0"}"#,
        FULL,
    ),
    (
        r#"{"user":{"id":"u"},"device":{"id":"d-1","type":"ios"},"ip":"192.0.2.1","locale":"de_DE","app":{"version":"2.3.0"}}"#,
        FULL,
    ),
    (
        r#"{"user_id":"u","device":{"id":"d-1","type":"ios","os":{"type":"x"}},"device_type":"ios","ip":"192.0.2.1","locale":"de_DE","app":{"version":"2.3"}}"#,
        FULL,
    ),
    (r#"{"user":{"id":"nested"},"user_id":"flat"}"#, user("flat")),
    (r#"{"user_id":"flat","user":{"id":"nested"}}"#, user("flat")),
    (r#"{"user_id":"u","device":"no object","app":[1]}"#, user("u")),
    // envelopes
    (
        r#"{"Type":"Notification","MessageId":"x","TopicArn":"arn:aws:sns:x","Message":"{\"user_id\":\"u\"}","Timestamp":"2026-01-01"}"#,
        user("u"),
    ),
    (
        r#"{"version":"0","detail-type":"login","source":"app","detail":{"user_id":"u","device":{"id":null}}}"#,
        user("u"),
    ),
    (
        r#"{"Type":"Notification","Message":"{\"detail-type\":\"login\",\"detail\":{\"user_id\":\"u\"}}"}"#,
        user("u"),
    ),
    (r#"{"detail-type":"login","detail":"{\"user_id\":\"u\"}"}"#, user("u")),
    (
        r#"{"specversion":"1.0","type":"login","source":"/app","id":"1","data":{"user":{"id":"u"}}}"#,
        user("u"),
    ),
    (
        r#"{"specversion":"1.0","type":"login","source":"/app","id":"1","data":"{\"user_id\":\"u\"}"}"#,
        user("u"),
    ),
    (r#""{\"user_id\":\"u\"}""#, user("u")),
    (r#""{\"Type\":\"Notification\",\"Message\":{\"user_id\":\"u\"}}""#, user("u")),
    // a login with members that envelopes have, too
    (r#"{"user_id":"u","Type":"Notification"}"#, user("u")),
    (r#"{"user_id":"u","Message":"{\"user_id\":\"other\"}"}"#, user("u")),
    (r#"{"user_id":"u","Type":"Notification","Message":"hello"}"#, user("u")),
    (r#"{"user_id":"u","detail-type":"login","detail":{"user_id":"other"}}"#, user("u")),
    (r#"{"detail-type":"login","detail":{"user_id":"other"},"user":{"id":"u"}}"#, user("u")),
    (r#"{"user_id":"u","specversion":"1.0","data":"x"}"#, user("u")),
    (r#"{"user":{"id":"u"},"user_id":{"id":"other"}}"#, user("u")),
    // what may be absent
    (
        r#"{"user_id":"u","device_type":null,"ip":null,"device_id":null,"locale":null,"app_version":null}"#,
        user("u"),
    ),
    (r#"{"user_id":"u","ip":"","device_id":" \t"}"#, user("u")),
    (r#"{"user_id":"u","locale":""}"#, [Some("u"), None, None, None, Some(""), None]),
    // numbers and booleans, as jsonb writes them
    (
        r#"{"user_id":1234567890123456789012345678901234567890,"device_type":false,"locale":-1.50e+2}"#,
        [Some("1234567890123456789012345678901234567890"), Some("false"), None, None, Some("-150"), None],
    ),
    (
        r#"{"user_id":"u","ip":167772161,"device_id":true}"#,
        [Some("u"), None, Some("167772161"), Some("true"), None, None],
    ),
    // texts
    (r#"{"user_id":"\u00e4\ud83d\ude00\"\\\/\n"}"#, user("ä😀\"\\/\n")),
    (r#"{"\u0075ser_id":"u"}"#, user("u")),
    (r#"{"user_id":" u "}"#, user(" u ")),
    (r#"{"user_id":"first","user_id":"last"}"#, user("last")),
    (r#"{"user_id":"u","device_id":"a\u0000b"}"#, [Some("u"), None, None, Some("a\0b"), None, None]),
    // the same address however written
    (r#"{"user_id":"u","ip":"::FFFF:192.0.2.1 "}"#, [Some("u"), None, Some("192.0.2.1"), None, None, None]),
    (r#"{"user_id":"u","ip":"2001:DB8:0::1"}"#, [Some("u"), None, Some("2001:db8::1"), None, None, None]),
    (r#"{"user_id":"u","ip":"010.0.0.1"}"#, [Some("u"), None, Some("010.0.0.1"), None, None, None]),
    (r#"{"user_id":"u","ip":"192.0.2.7:50312"}"#, [Some("u"), None, Some("192.0.2.7"), None, None, None]),
    (r#"{"user_id":"u","ip":"[2001:db8::1]:443"}"#, [Some("u"), None, Some("2001:db8::1"), None, None, None]),
    (r#"{"user_id":"u","ip":"192.0.2.7/32"}"#, [Some("u"), None, Some("192.0.2.7"), None, None, None]),
    (r#"{"user_id":"u","ip":"192.0.2.7/24"}"#, [Some("u"), None, Some("192.0.2.0/24"), None, None, None]),
    // versions
    (r#"{"user_id":"u","app_version":""}"#, user("u")),
    (r#"{"user_id":"u","app":{"version":" "}}"#, user("u")),
    (r#"{"user_id":"u","app_version":"v3.1.4"}"#, [Some("u"), None, None, None, None, Some("3001004")]),
    (r#"{"user_id":"u","app_version":" V3.1.4 "}"#, [Some("u"), None, None, None, None, Some("3001004")]),
    (r#"{"user_id":"u","app_version":"3.1.0rc1"}"#, [Some("u"), None, None, None, None, Some("3001000")]),
    (r#"{"user_id":"u","app_version":"3.1.4 (4512)"}"#, [Some("u"), None, None, None, None, Some("3001004")]),
    (r#"{"user_id":"u","app_version":2.10}"#, [Some("u"), None, None, None, None, Some("2010000")]),
    (r#"{"user_id":"u","app_version":"0.96"}"#, [Some("u"), None, None, None, None, Some("96000")]),
    (r#"{"user_id":"u","app_version":7}"#, [Some("u"), None, None, None, None, Some("7000000")]),
    (r#"{"user_id":"u","app_version":"1.2.3-rc.1+5"}"#, [Some("u"), None, None, None, None, Some("1002003")]),
    (r#"{"user_id":"u","app_version":"1.2.3.99999"}"#, [Some("u"), None, None, None, None, Some("1002003")]),
    (
        r#"{"user_id":"u","app_version":"2147.483.647"}"#,
        [Some("u"), None, None, None, None, Some("2147483647")],
    ),
];

#[tokio::test]
async fn every_field_to_its_column() {
    let client = cluster().await.database("flatten").await.unwrap();
    let keyring = keyring().await;
    for (body, expected) in CASES {
        assert_eq!(ingest(&client, &[(*body, *body)]).await, [1, 0, 0], "{body}");
        let sql =
            "DELETE FROM user_logins RETURNING user_id, device_type, masked_ip, masked_device_id, locale,
            app_version::text, create_date::text";
        let row = client.query_one(sql, &[]).await.unwrap();
        let found: [Option<String>; 6] = std::array::from_fn(|at| row.get(at));
        let mut expected = expected.map(|value| value.map(str::to_owned));
        for masked in [2, 3] {
            expected[masked] = expected[masked].take().map(|value| token(&keyring, &value));
        }
        assert_eq!(found, expected, "{body}");
        assert_eq!(row.get::<_, &str>(6), "2026-11-20", "{body}");
    }
}

const REFUSED: &[(&str, &str)] = &[
    ("", "invalid_json"),
    (r#"{"user_id":"u""#, "invalid_json"),
    (r#"{"Type":"Notification","Message":"no json"}"#, "invalid_json"),
    ("null", "not_an_object"),
    (r#"["user_id"]"#, "not_an_object"),
    (r#"{"Type":"Notification","Message":"1"}"#, "not_an_object"),
    (r#"{"detail-type":"login","detail":"text"}"#, "not_an_object"),
    (r#"{"specversion":"1.0","data":[{"user_id":"u"}]}"#, "not_an_object"),
    (r#""text""#, "not_an_object"),
    (r#""{\"user_id\":""#, "invalid_json"),
    ("{}", "missing:user_id"),
    (r#"{"foo":"oops_wrong_msg_type","bar":"123"}"#, "missing:user_id"),
    (r#"{"user_id":""}"#, "missing:user_id"),
    (r#"{"user_id":null}"#, "missing:user_id"),
    (r#"{"user_id":["u"]}"#, "invalid:user_id"),
    (r#"{"user_id":"u\u0000"}"#, "invalid:user_id"),
    (r#"{"user_id":"u","ip":["192.0.2.1"]}"#, "invalid:ip"),
    (r#"{"user_id":"u","locale":"123456789 123456789 123456789 123"}"#, "too_long:locale"),
    (r#"{"user_id":"u","device":{"type":"123456789 123456789 123456789 123"}}"#, "too_long:device_type"),
    (r#"{"user_id":"u","device":{"type":"\ud800"}}"#, "invalid:device_type"),
    (r#"{"user_id":"u","device_id":"\udc00"}"#, "invalid:device_id"),
    (
        r#"["software.amazon.payloadoffloading.PayloadS3Pointer",{"s3BucketName":"b","s3Key":"k"}]"#,
        "s3_pointer",
    ),
    (
        r#"{"Type":"Notification","Message":"[\"software.amazon.payloadoffloading.PayloadS3Pointer\",{}]"}"#,
        "s3_pointer",
    ),
    (r#"{"user_id":"u","app_version":"version 2"}"#, "invalid:app_version"),
    (r#"{"user_id":"u","app_version":"3.1.4512"}"#, "invalid:app_version"),
    (r#"{"user_id":"u","app_version":"1.1000"}"#, "invalid:app_version"),
    (r#"{"user_id":"u","app_version":"2148.0.0"}"#, "invalid:app_version"),
    (r#"{"user_id":"u","app_version":"2147.483.648"}"#, "invalid:app_version"),
    (r#"{"user_id":"u","app_version":true}"#, "invalid:app_version"),
];

#[tokio::test]
async fn what_is_no_login_is_quarantined_with_its_reason() {
    let client = cluster().await.database("no_login").await.unwrap();
    for (body, reason) in REFUSED {
        assert_eq!(ingest(&client, &[(*body, *body)]).await, [0, 0, 1], "{body}");
        let found = texts(&client, "DELETE FROM pgmask.quarantine RETURNING reason").await;
        assert_eq!(found, [*reason], "{body}");
    }
}

#[tokio::test]
async fn versions_come_back_as_text() {
    let client = cluster().await.database("versions").await.unwrap();
    let sql = "SELECT coalesce(app_version_text(v), 'none') FROM unnest(ARRAY[2003000, 96000, 0, 2147483647, 1002003, -1, NULL]) v";
    let expected = ["2.3.0", "0.96.0", "0.0.0", "2147.483.647", "1.2.3", "none", "none"];
    assert_eq!(texts(&client, sql).await, expected);
}
