//! A delete can fail in part: the rest is tried again alone, and what is lost is not tried for ever.

use crate::common::{Way, counts, ends_with, localstack, logins};
use rustix::process::Signal;
use std::ops::Range;
use testbed::forwarder::Running;
use testbed::guardian::wait_until;
use testbed::proxy::{Fault, Proxy};

/// A forwarder that has ten messages in the database, and whose deletes get an answer.
async fn answered(way: &Way, deletes: &str) -> (Proxy, Running) {
    let proxy = Proxy::before(localstack().await.port()).await.unwrap();
    proxy.set(Fault::answer("DeleteMessageBatch", "200 OK", deletes));
    way.queue.send(&logins(0..10)).await.unwrap();
    let mut command = way.forwarder().await;
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", proxy.port()));
    let running = Running::start(command).unwrap();
    way.rows(10).await;
    (proxy, running)
}

fn failed(code: &str) -> String {
    let successful: Vec<String> = (0..7).map(|id| format!(r#"{{"Id":"{id}"}}"#)).collect();
    format!(r#"{{"Successful":[{}],"Failed":[{}]}}"#, successful.join(","), entries(7..10, code, false))
}

/// Each delete fails, and to SQS it is the sender's fault.
fn all_failed(code: &str) -> String {
    format!(r#"{{"Successful":[],"Failed":[{}]}}"#, entries(0..10, code, true))
}

fn entries(ids: Range<usize>, code: &str, sender_fault: bool) -> String {
    let entry = |id| format!(r#"{{"Id":"{id}","Code":"{code}","SenderFault":{sender_fault}}}"#);
    ids.map(entry).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn the_rest_is_tried_again_alone() {
    let way = Way::new("part_failed").await;
    let (proxy, running) = answered(&way, &failed("InternalError")).await;
    let fails = || async { running.metric("pg_mask_forwarder_delete_failures_total").await >= 3 };
    wait_until("three fail", fails).await.unwrap();
    proxy.set(Fault::None);
    // The seven that were said to be deleted never were; only the three are gone now.
    let gone = || async { way.queue.depth().await.unwrap() == [0, 7, 0] };
    wait_until("three are gone", gone).await.unwrap();
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(counts(&ended.summary), [10, 10, 0, 0, 10], "{}", ended.log);
}

/// A delete that is throttled is the sender's fault to SQS, and was given up: the message came again after each
/// visibility timeout, until it was a dead letter, though it was stored.
#[tokio::test]
async fn what_is_throttled_is_tried_again() {
    let way = Way::new("throttled_deletes").await;
    let (proxy, running) = answered(&way, &all_failed("RequestThrottled")).await;
    let tried_again = || async { running.metric("pg_mask_forwarder_delete_failures_total").await >= 20 };
    wait_until("all fail twice", tried_again).await.unwrap();
    proxy.set(Fault::None);
    let gone = || async { way.queue.depth().await.unwrap() == [0, 0, 0] };
    wait_until("all are gone", gone).await.unwrap();
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(counts(&ended.summary), [10, 10, 0, 0, 10], "{}", ended.log);
    assert!(!ended.log.contains("expired"), "{}", ended.log);
}

/// A drain waited for ever for messages that were not deleted and not lost either.
#[tokio::test]
async fn a_drain_gives_up_what_is_not_deleted_for_a_minute() {
    let way = Way::new("never_deleted").await;
    let proxy = Proxy::before(localstack().await.port()).await.unwrap();
    proxy.set(Fault::answer("DeleteMessageBatch", "200 OK", &all_failed("KMS.DisabledException")));
    way.queue.send(&logins(0..10)).await.unwrap();
    let mut command = way.drain().await;
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", proxy.port()));
    let ended = ends_with(command, 69, "the queue did not delete some messages for a minute").await;
    assert_eq!(counts(&ended.summary)[..4], [10, 10, 0, 0], "{}", ended.log);
}

#[tokio::test]
async fn what_is_lost_gives_its_place_back() {
    let way = Way::new("lost_handles").await;
    let (_proxy, running) = answered(&way, &failed("ReceiptHandleIsInvalid")).await;
    let given_up = || async {
        running.metric("pg_mask_forwarder_delete_failures_total").await == 3
            && running.metric("pg_mask_forwarder_in_flight_messages").await == 0
    };
    wait_until("three are given up", given_up).await.unwrap();
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(counts(&ended.summary), [10, 10, 0, 0, 7], "{}", ended.log);
    assert!(ended.log.contains("receipt handles have expired"), "{}", ended.log);
}
