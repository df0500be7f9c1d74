//! Any list of messages, in any split into batches, in any order, with any repeats, gives the same rows.

use crate::common::{cluster, ingest, texts};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const SHAPE: &str = "ALTER TABLE user_logins ADD CHECK (locale <> 'ZZ'), ADD CHECK (app_version <> 13000000)";
const ROWS: &str = "SELECT row(l.*)::text FROM user_logins l ORDER BY 1";
const KEPT: &str = "SELECT message_id || ' ' || reason FROM pgmask.quarantine ORDER BY 1";
const EMPTY: &str = "TRUNCATE user_logins, pgmask.ledger, pgmask.quarantine";

fn body() -> impl Strategy<Value = String> {
    let locale = prop_oneof![Just("DE"), Just("ZZ"), Just("longer than thirty-two characters")];
    let version = prop_oneof![Just("\"1.2.3\""), Just("13"), Just("\"x\""), Just("null")];
    let good = (0..4u8, 0..3u8, locale, version).prop_map(|(user, device, locale, version)| {
        format!(r#"{{"user":{{"id":{user}}},"device_id":"d{device}","locale":"{locale}","app_version":{version}}}"#)
    });
    prop_oneof![4 => good, 1 => any::<String>().prop_map(|text| text.replace('\0', ""))]
}

/// Bodies, and deliveries of them: which, and whether a batch ends there. Each is delivered at last.
fn deliveries() -> impl Strategy<Value = (Vec<String>, Vec<(usize, bool)>)> {
    vec(body(), 1..40).prop_flat_map(|bodies| {
        let count = bodies.len();
        let again = vec(0..count, 0..60);
        let order = again.prop_map(move |again| (0..count).chain(again).collect::<Vec<_>>()).prop_shuffle();
        let order = order.prop_flat_map(|order| {
            let ends = vec(prop::bool::weighted(0.2), order.len());
            ends.prop_map(move |ends| order.iter().copied().zip(ends).collect())
        });
        (Just(bodies), order)
    })
}

#[test]
fn any_order_split_and_repetition_gives_the_same() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(async {
        let client = cluster().await.database("properties").await.unwrap();
        client.batch_execute(SHAPE).await.unwrap();
        client
    });
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let result = runner.run(&deliveries(), |(bodies, deliveries)| {
        runtime.block_on(async {
            let message = |at: usize| (format!("message {at}"), bodies[at].as_str());
            client.batch_execute(EMPTY).await.unwrap();
            for at in 0..bodies.len() {
                ingest(&client, &[message(at)]).await;
            }
            let expected = (texts(&client, ROWS).await, texts(&client, KEPT).await);

            client.batch_execute(EMPTY).await.unwrap();
            let mut sum = [0; 3];
            for batch in deliveries.split_inclusive(|(_, ends)| *ends) {
                let batch: Vec<_> = batch.iter().map(|(at, _)| message(*at)).collect();
                let counts = ingest(&client, &batch).await;
                sum = std::array::from_fn(|at| sum[at] + counts[at]);
            }
            let found = (texts(&client, ROWS).await, texts(&client, KEPT).await);
            prop_assert_eq!(&found, &expected);
            let repeats = deliveries.len() - bodies.len();
            prop_assert_eq!(sum, [found.0.len() as i64, repeats as i64, found.1.len() as i64]);
            Ok(())
        })
    });
    // The bodies are made up, so they may be shown.
    result.unwrap_or_else(|error| panic!("{error}"));
}
