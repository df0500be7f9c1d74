//! A delete can fail in part: the rest is tried again alone, and what is lost is not tried for ever.

use crate::common::{Way, counts, localstack, logins};
use rustix::process::Signal;
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
    let entry = |id| format!(r#"{{"Id":"{id}","Code":"{code}","SenderFault":false}}"#);
    let failed: Vec<String> = (7..10).map(entry).collect();
    let successful: Vec<String> = (0..7).map(|id| format!(r#"{{"Id":"{id}"}}"#)).collect();
    format!(r#"{{"Successful":[{}],"Failed":[{}]}}"#, successful.join(","), failed.join(","))
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
