//! The hundred messages of the original exercise go the whole way: a queue, the forwarder, masked rows.

use crate::common::{Way, counts, keyring, token};
use serde_json::Value;
use std::collections::BTreeSet;

const BODIES: &str = include_str!("../../data/fetch-logins.jsonl");

/// "2.00" is version 2.0.0.
fn three_parts(version: &str) -> String {
    let mut parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    parts.resize(3, 0);
    format!("{}.{}.{}", parts[0], parts[1], parts[2])
}

#[tokio::test]
async fn a_hundred_original_messages() {
    let way = Way::new("a_hundred").await;
    let bodies: Vec<String> = BODIES.lines().map(str::to_owned).collect();
    assert_eq!(bodies.len(), 100);
    way.queue.send(&bodies).await.unwrap();

    assert_eq!(counts(&way.drained().await), [100, 99, 0, 1, 100]);
    assert_eq!(way.queue.depth().await.unwrap(), [0, 0, 0]);
    assert_eq!(way.count("SELECT count(*) FROM pgmask.ledger").await, 100);
    let reason: String =
        way.database.query_one("SELECT reason FROM pgmask.quarantine", &[]).await.unwrap().get(0);
    assert_eq!(reason, "missing:user_id");

    let keyring = keyring().await;
    let logins = bodies.iter().map(|body| serde_json::from_str::<Value>(body).unwrap());
    let expected: BTreeSet<[Option<String>; 6]> = logins
        .filter(|login| login["user_id"].is_string())
        .map(|login| {
            let text = |name: &str| login[name].as_str().map(str::to_owned);
            [
                text("user_id"),
                text("device_type"),
                text("ip").map(|ip| token(&keyring, &ip)),
                text("device_id").map(|id| token(&keyring, &id)),
                text("locale"),
                text("app_version").map(|version| three_parts(&version)),
            ]
        })
        .collect();
    let sql =
        "SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version_text(app_version)
               FROM user_logins WHERE create_date = (now() AT TIME ZONE 'UTC')::date";
    let rows = way.database.query(sql, &[]).await.unwrap();
    let found: BTreeSet<[Option<String>; 6]> =
        rows.iter().map(|row| [0, 1, 2, 3, 4, 5].map(|column| row.get(column))).collect();
    let different: Vec<_> = found.symmetric_difference(&expected).collect();
    assert!(different.is_empty(), "found or expected, but not both: {different:#?}");
    assert_eq!(found.len(), 99);

    // Versions that differ as versions differ as integers.
    let versions = found.iter().filter_map(|row| row[5].clone()).collect::<BTreeSet<_>>().len();
    let integers = way.count("SELECT count(DISTINCT app_version) FROM user_logins").await;
    assert_eq!(integers, versions as i64);
}

#[tokio::test]
async fn the_sample_of_the_demo() {
    let way = Way::new("the_sample").await;
    way.queue.send(&testbed::sample::bodies()).await.unwrap();
    assert_eq!(counts(&way.drained().await), [300, 297, 0, 3, 300]);
    // However the office's address is written, it has one token.
    let sql = "SELECT count(*) FROM user_logins WHERE masked_ip = mask_pii('203.0.113.7')";
    assert!(way.count(sql).await > 50);
    assert!(way.count("SELECT count(*) FROM logins.shared_devices").await >= 4);
}

#[tokio::test]
async fn an_empty_queue_is_drained_at_once() {
    let way = Way::new("an_empty_queue").await;
    assert_eq!(counts(&way.drained().await), [0; 5]);
}
