//! A JSON number has one text and one token, whether it comes as `jsonb` or in a message body.

use crate::common::{cluster, ingest, texts};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Numbers at the limits of `numeric`, and of every form that JSON has.
const NUMBERS: &[&str] = &[
    "1e5",
    "1E+5",
    "100000",
    "1e05",
    "0",
    "-0",
    "0e5",
    "-0e-3",
    "0.00",
    "1.0",
    "1.50e+2",
    "-1.50e1",
    "1.5e-3",
    "0.05e1",
    "10e-1",
    "9007199254740993",
    "1.7976931348623157e308",
    "5e-324",
    "1e131071",
    "-1e131071",
    "1.25e-16381",
    "0e-16383",
    "0e100000",
];

/// Numbers that no `numeric` can hold, and so no `jsonb`: they stay as they are.
const PAST_NUMERIC: &[&str] =
    &["1e131072", "-1e1000000", "1e999999999", "1e99999999999999999999", "1e-16384"];

#[tokio::test]
async fn a_number_has_one_token_whichever_way_it_comes() {
    let client = cluster().await.database("numbers").await.unwrap();
    let form = "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][-+]?[0-9]{1,3})?";
    let mut runner = TestRunner::default();
    let strategy = proptest::string::string_regex(form).unwrap();
    let mut numbers: Vec<String> = NUMBERS.iter().map(|number| (*number).to_owned()).collect();
    numbers.extend((0..1000).map(|_| strategy.new_tree(&mut runner).unwrap().current()));

    let body =
        |at: usize, number: &str| format!(r#"{{"user_id":"{at}","ip":{number},"device":{{"id":{number}}}}}"#);
    let bodies: Vec<String> = numbers.iter().enumerate().map(|(at, number)| body(at, number)).collect();
    let messages: Vec<(String, &String)> =
        bodies.iter().enumerate().map(|(at, body)| (at.to_string(), body)).collect();
    assert_eq!(ingest(&client, &messages).await, [numbers.len() as i64, 0, 0]);
    let by_jsonb = "SELECT count(pgmask.ingest_login(body::jsonb)) FROM unnest($1::text[]) body";
    client.query_one(by_jsonb, &[&bodies]).await.unwrap();

    let differ = texts(
        &client,
        "SELECT user_id FROM user_logins GROUP BY user_id
         HAVING count(*) <> 2 OR count(DISTINCT masked_ip) <> 1 OR count(DISTINCT masked_device_id) <> 1",
    )
    .await;
    let differ: Vec<&String> = differ.iter().map(|at| &numbers[at.parse::<usize>().unwrap()]).collect();
    assert!(differ.is_empty(), "{differ:?}");
    // The same value, written in other ways, has the same token; other values have others.
    let same = "SELECT count(DISTINCT masked_ip) FROM user_logins WHERE user_id::int < 4";
    assert_eq!(crate::common::count(&client, same).await, 1);
    let apart = "SELECT count(DISTINCT masked_ip) FROM user_logins WHERE user_id::int IN (3, 4, 10, 15)";
    assert_eq!(crate::common::count(&client, apart).await, 4);
}

#[tokio::test]
async fn a_stored_number_is_written_as_jsonb_writes_it() {
    let client = cluster().await.database("stored_numbers").await.unwrap();
    for number in ["1e5", "-0", "1.50e+2", "1.5e-3", "9007199254740993", "1e100"] {
        let body = format!(r#"{{"user_id":{number}}}"#);
        assert_eq!(ingest(&client, &[(number, &body)]).await, [1, 0, 0]);
        let sql = "DELETE FROM user_logins RETURNING user_id = $1::text::jsonb ->> 'user_id'";
        assert!(client.query_one(sql, &[&body]).await.unwrap().get::<_, bool>(0), "{number}");
    }
    assert_eq!(ingest(&client, &[("long", r#"{"user_id":1e5000}"#)]).await, [0, 0, 1]);
    assert_eq!(texts(&client, "SELECT reason FROM pgmask.quarantine").await, ["too_long:user_id"]);
}

#[tokio::test]
async fn what_numeric_cannot_hold_stays_as_it_is() {
    let client = cluster().await.database("past_numeric").await.unwrap();
    for number in PAST_NUMERIC {
        let as_jsonb = client.query_one("SELECT $1::text::jsonb", &[number]).await;
        assert!(as_jsonb.is_err(), "{number} is a numeric");
        let body = format!(r#"{{"user_id":"u","device_id":{number}}}"#);
        assert_eq!(ingest(&client, &[(*number, &body)]).await, [1, 0, 0]);
        let sql = "DELETE FROM user_logins RETURNING masked_device_id = mask_pii($1::text)";
        assert!(client.query_one(sql, &[number]).await.unwrap().get::<_, bool>(0), "{number}");
    }
}
