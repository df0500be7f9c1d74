//! A drain ends when the queue is truly empty, and not before.

use crate::common::{Way, counts, logins};
use std::time::{Duration, Instant};
use testbed::forwarder;

#[tokio::test]
async fn it_waits_for_delayed_messages_and_for_those_of_others() {
    let way = Way::new("delayed").await;
    way.queue.send(&logins(0..5)).await.unwrap();
    let receive = way.queue.client.receive_message().queue_url(&way.queue.url);
    let others = receive.max_number_of_messages(5).visibility_timeout(4).send().await.unwrap();
    let others = others.messages.unwrap().len() as u64;
    for body in logins(5..8) {
        let send = way.queue.client.send_message().queue_url(&way.queue.url).message_body(body);
        send.delay_seconds(3).send().await.unwrap();
    }
    assert_eq!(way.queue.depth().await.unwrap(), [5 - others, others, 3]);
    assert_eq!(counts(&way.drained().await), [8, 8, 0, 0, 8]);
    way.holds_each_once(8).await;
}

#[tokio::test]
async fn many_receivers_do_not_make_it_slow() {
    let way = Way::new("fifty_receivers").await;
    way.queue.send(&logins(0..500)).await.unwrap();
    let mut command = way.drain().await;
    command.arg("--receivers=50");
    let start = Instant::now();
    let ended = forwarder::run(command).await.unwrap();
    assert_eq!(counts(&ended.summary), [500, 500, 0, 0, 500], "{}", ended.log);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
