//! Optional fields and columns: what is invalid in one field need not cost the login, versions may be stored
//! as texts, networks get tokens of their own, and a column that nothing fits into is named.

use crate::common::{cluster, count, ingest, message, texts};

/// Each with something invalid, or too long, in an optional field.
const INVALID: [(&str, &str); 5] = [
    ("version", r#"{"user_id":"1","app_version":"3.1.4512","locale":"DE"}"#),
    ("locale", r#"{"user_id":"2","locale":"0123456789012345678901234567890123456789","ip":"192.0.2.1"}"#),
    ("type", r#"{"user_id":"3","device_type":["ios"]}"#),
    ("ip", r#"{"user_id":"4","ip":["192.0.2.1"],"device_id":"d"}"#),
    ("device", r#"{"user_id":"5","device_id":[1]}"#),
];

#[tokio::test]
async fn an_invalid_optional_field_costs_the_login_or_the_field() {
    let client = cluster().await.database("invalid_optional").await.unwrap();
    assert_eq!(ingest(&client, &INVALID).await, [0, 0, 5]);
    client.batch_execute("SET pgmask.invalid_optional = 'null'").await.unwrap();
    // What lies in the quarantine for it goes in now.
    assert_eq!(count(&client, "SELECT inserted FROM pgmask.replay_quarantine()").await, 5);
    let again = INVALID.map(|(id, body)| (format!("again {id}"), body));
    assert_eq!(ingest(&client, &again).await, [5, 0, 0]);
    let rows = "SELECT concat_ws(' ', user_id, locale, app_version, device_type, (masked_ip = mask_pii('192.0.2.1'))::text,
                                 (masked_device_id = mask_pii('d'))::text)
                FROM user_logins GROUP BY 1 HAVING count(*) = 2 ORDER BY 1";
    assert_eq!(texts(&client, rows).await, ["1 DE", "2 true", "3", "4 true", "5"]);
    // What is required stays required, and what is no login stays none.
    let bad = [
        ("none", r#"{"locale":"DE"}"#),
        ("long", &format!(r#"{{"user_id":"{}"}}"#, "x".repeat(129))),
        ("json", "x"),
    ];
    assert_eq!(ingest(&client, &bad).await, [0, 0, 3]);
    client.batch_execute("RESET pgmask.invalid_optional").await.unwrap();
    let error = client.batch_execute("SET pgmask.invalid_optional = 'drop'").await.unwrap_err();
    assert!(message(&error).starts_with("22023 "), "{}", message(&error));
}

#[tokio::test]
async fn a_text_column_keeps_the_version_as_it_came() {
    let client = cluster().await.database("text_versions").await.unwrap();
    client
        .batch_execute(
            "DROP SCHEMA logins CASCADE; ALTER TABLE user_logins ALTER app_version TYPE varchar(12)",
        )
        .await
        .unwrap();
    let bodies = ["v3.1.4", "3.1.4512", "nightly", "2.3.0-beta", "", "0123456789abc"];
    let messages: Vec<_> = bodies
        .iter()
        .map(|version| (*version, format!(r#"{{"user_id":"u","app_version":"{version}"}}"#)))
        .collect();
    assert_eq!(ingest(&client, &messages).await, [5, 0, 1]);
    let stored = "SELECT coalesce(app_version, 'NULL') FROM user_logins ORDER BY app_version COLLATE \"C\"";
    assert_eq!(texts(&client, stored).await, ["2.3.0-beta", "3.1.4512", "nightly", "v3.1.4", "NULL"]);
    assert_eq!(texts(&client, "SELECT reason FROM pgmask.quarantine").await, ["too_long:app_version"]);
}

#[tokio::test]
async fn a_column_for_networks_gets_their_tokens() {
    let client = cluster().await.database("network_column").await.unwrap();
    client.batch_execute("ALTER TABLE user_logins ADD masked_ip_network varchar(67)").await.unwrap();
    let addresses = [
        "192.0.2.7",
        " 192.0.2.9:443",
        "::ffff:192.0.2.1",
        "2001:db8::1",
        "[2001:db8:0:9::1]",
        "192.0.2.1, 10.0.0.1",
        "",
    ];
    let messages: Vec<_> = (0..)
        .zip(addresses)
        .map(|(n, ip)| (format!("{n}"), format!(r#"{{"user_id":"{n}","ip":"{ip}"}}"#)))
        .collect();
    assert_eq!(ingest(&client, &messages).await, [7, 0, 0]);
    let stored = "SELECT CASE masked_ip_network WHEN mask_network('192.0.2.0/24') THEN 'v4' WHEN mask_network('2001:db8::') THEN 'v6'
                  ELSE coalesce(masked_ip_network, 'NULL') END FROM user_logins ORDER BY user_id";
    assert_eq!(texts(&client, stored).await, ["v4", "v4", "v4", "v6", "v6", "NULL", "NULL"]);
    client
        .batch_execute("ALTER TABLE user_logins DROP masked_ip_network, ADD masked_ip_network varchar(66)")
        .await
        .unwrap();
    let error = client.batch_execute("SELECT ingest_login('{\"user_id\": 1}')").await.unwrap_err();
    assert!(
        message(&error).contains("column \"masked_ip_network\" of table \"public.user_logins\" has no room"),
        "{error:?}"
    );
}

/// An empty batch, as `forwarder check` and the start of the forwarder hand it in, finds what does not fit.
#[tokio::test]
async fn a_column_that_does_not_fit_is_named_before_any_message() {
    let client = cluster().await.database("misfits").await.unwrap();
    client
        .batch_execute("DROP SCHEMA logins CASCADE; CREATE TYPE kind AS ENUM ('ios', 'android')")
        .await
        .unwrap();
    const EMPTY: &str = "SELECT * FROM pgmask.ingest_login_batch('{}', '{}', '{}', '{}')";
    for (ddl, expected) in [
        (
            "ALTER device_type TYPE kind USING NULL",
            "42804 column \"device_type\" of table \"public.user_logins\" is of the type public.kind, which takes no text",
        ),
        (
            "ALTER user_id TYPE uuid USING NULL",
            "42804 column \"user_id\" of table \"public.user_logins\" is of the type uuid, which takes no text",
        ),
        (
            "ALTER app_version TYPE boolean USING NULL",
            "42804 column \"app_version\" of table \"public.user_logins\" is of the type boolean, which takes no integer or text",
        ),
        (
            "ALTER create_date TYPE integer USING NULL",
            "42804 column \"create_date\" of table \"public.user_logins\" is of the type integer, which takes no date",
        ),
        (
            "DROP locale, ADD locale text GENERATED ALWAYS AS ('DE') STORED",
            "428C9 column \"locale\" of table \"public.user_logins\" is generated",
        ),
        (
            "DROP app_version, ADD app_version integer GENERATED ALWAYS AS IDENTITY",
            "428C9 column \"app_version\" of table \"public.user_logins\" is generated",
        ),
    ] {
        client.batch_execute(&format!("BEGIN; ALTER TABLE user_logins {ddl}")).await.unwrap();
        let error = message(&client.batch_execute(EMPTY).await.unwrap_err());
        assert!(error.starts_with(expected), "{ddl}: {error}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    // With a cast it fits; so do wider types.
    for ddl in [
        "ALTER create_date TYPE timestamptz",
        "ALTER app_version TYPE numeric",
        "ALTER user_id TYPE char(200)",
        "ALTER device_type TYPE kind USING NULL; CREATE CAST (text AS kind) WITH INOUT AS ASSIGNMENT",
    ] {
        client
            .batch_execute(&format!("BEGIN; ALTER TABLE user_logins {ddl}; {EMPTY}"))
            .await
            .unwrap_or_else(|error| panic!("{ddl}: {error:?}"));
        let body = r#"{"user_id":"u","device_type":"ios","app_version":"2.3"}"#;
        assert_eq!(ingest(&client, &[(ddl, body)]).await, [1, 0, 0], "{ddl}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}
