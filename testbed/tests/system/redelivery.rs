//! A message has its effect once: sent again it is another message, delivered again it is not.

use crate::common::{Way, counts};

#[tokio::test]
async fn redelivered_messages_are_duplicates_and_resent_ones_are_not() {
    let way = Way::new("redelivered").await;
    let bodies: Vec<String> = (0..25).map(|n| format!(r#"{{"user_id":"u{n}"}}"#)).collect();

    // Taken in, but never acknowledged: as by a forwarder that was killed before it could delete.
    way.queue.send(&bodies).await.unwrap();
    let mut taken = 0;
    let mut handles = Vec::new();
    while taken < 25 {
        let receive = way.queue.client.receive_message().queue_url(&way.queue.url).max_number_of_messages(10);
        let received = receive.message_system_attribute_names("All".into()).send().await.unwrap();
        for message in received.messages.expect("there are more") {
            let sent: i64 = message.attributes.unwrap()[&"SentTimestamp".into()].parse().unwrap();
            let sql = "SELECT inserted FROM pgmask.ingest_login_batch(
                ARRAY[$1], ARRAY[$2], ARRAY[to_timestamp($3::text::float8 / 1000)], ARRAY[1])";
            let sent = sent.to_string();
            let row =
                way.database.query_one(sql, &[&message.message_id, &message.body, &sent]).await.unwrap();
            taken += row.get::<_, i64>(0);
            handles.extend(message.receipt_handle);
        }
    }
    for handle in handles {
        let change = way.queue.client.change_message_visibility().queue_url(&way.queue.url);
        change.receipt_handle(handle).visibility_timeout(0).send().await.unwrap();
    }
    assert_eq!(way.count("SELECT count(*) FROM user_logins").await, 25);

    // They come again.
    assert_eq!(counts(&way.drained().await), [25, 0, 25, 0, 25]);
    assert_eq!(way.count("SELECT count(*) FROM user_logins").await, 25);

    // The same bodies, sent again, are new messages.
    way.queue.send(&bodies).await.unwrap();
    assert_eq!(counts(&way.drained().await), [25, 25, 0, 0, 25]);
    assert_eq!(way.count("SELECT count(*) FROM user_logins").await, 50);
}
