//! A drain ends when the queue is truly empty, and not before.

use crate::common::{Way, counts, ends_with, localstack, logins};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use testbed::forwarder::{self, Running};
use testbed::guardian::wait_until;
use testbed::proxy::{Fault, Proxy};

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

/// It took two seconds: it waited for a look at the queue, for a second one, and for a long poll.
#[tokio::test]
async fn it_ends_soon_after_the_last_delete() {
    let way = Way::new("drain_ends_soon").await;
    let mut quickest = Duration::MAX;
    for round in 0..3 {
        way.queue.send(&logins(300 * round..300 * (round + 1))).await.unwrap();
        let ended = tokio::spawn(forwarder::run(way.drain().await));
        let is_empty = || async { way.queue.depth().await.unwrap() == [0; 3] };
        wait_until("the queue is empty", is_empty).await.unwrap();
        let start = Instant::now();
        let ended = ended.await.unwrap().unwrap();
        quickest = quickest.min(start.elapsed());
        assert_eq!(counts(&ended.summary), [300, 300, 0, 0, 300], "{}", ended.log);
    }
    assert!(quickest < Duration::from_millis(700), "{quickest:?}");
}

/// Another consumer holds this queue's only message for an hour.
async fn held_elsewhere(name: &'static str) -> Way {
    let way = Way::new(name).await;
    way.queue.send(&logins(0..1)).await.unwrap();
    let receive = way.queue.client.receive_message().queue_url(&way.queue.url);
    receive.visibility_timeout(3600).send().await.unwrap();
    way
}

/// It ended with 0, so cron and Airflow saw success.
#[tokio::test]
async fn one_that_is_stopped_before_the_queue_is_empty_says_so() {
    let way = held_elsewhere("drain_stopped").await;
    let running = Running::start(way.drain().await).unwrap();
    let ready = || async { running.get("/readyz").await.contains("200 OK") };
    wait_until("it is ready", ready).await.unwrap();
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(ended.code, Some(75), "{}", ended.log);
    assert!(ended.log.contains("the drain was stopped before the queue was empty"), "{}", ended.log);
}

/// It waited for ever without a word.
#[tokio::test]
async fn one_that_waits_for_others_says_so_and_has_a_time_limit() {
    let way = held_elsewhere("drain_waits").await;
    way.queue.send(&logins(1..11)).await.unwrap();
    let mut command = way.drain().await;
    command.arg("--drain-timeout=14s");
    let start = Instant::now();
    let ended = ends_with(command, 75, "--drain-timeout").await;
    assert!((14..30).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    let waiting = "waiting for messages that are in flight at other consumers, or delayed";
    assert_eq!(ended.log.matches(waiting).count(), 1, "{}", ended.log);
    assert_eq!(counts(&ended.summary), [10, 10, 0, 0, 10], "{}", ended.log);
}

/// Only a drain has to know whether messages are delayed.
#[tokio::test]
async fn a_server_that_gives_no_count_of_delayed_messages_can_be_used_without_draining() {
    let way = Way::new("no_delayed_count").await;
    let proxy = Proxy::before(localstack().await.port()).await.unwrap();
    let counts =
        r#"{"Attributes":{"ApproximateNumberOfMessages":"0","ApproximateNumberOfMessagesNotVisible":"0"}}"#;
    proxy.set(Fault::answer("GetQueueAttributes", "200 OK", counts));
    let endpoint = format!("http://127.0.0.1:{}", proxy.port());
    let mut command = way.forwarder().await;
    command.env("AWS_ENDPOINT_URL", &endpoint);
    let running = Running::start(command).unwrap();
    way.queue.send(&logins(0..10)).await.unwrap();
    way.rows(10).await;
    assert!(running.get("/readyz").await.contains("200 OK"));
    let mut command = way.drain().await;
    command.env("AWS_ENDPOINT_URL", &endpoint);
    ends_with(command, 78, "does not say ApproximateNumberOfMessagesDelayed").await;
}
