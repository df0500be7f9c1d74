//! Asked to stop, a forwarder settles what it holds: nothing is lost, doubled or kept hidden.

use crate::common::{Way, cluster, logins};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use testbed::forwarder::Running;
use testbed::guardian::wait_until;
use testbed::proxy::{Fault, Proxy};

#[tokio::test]
async fn a_signal_at_any_moment_loses_doubles_and_hides_nothing() {
    let way = Way::new("signals").await;
    way.queue.send(&logins(0..2000)).await.unwrap();
    for (round, signal) in [Signal::TERM, Signal::INT, Signal::TERM, Signal::INT].into_iter().enumerate() {
        let mut command = way.forwarder().await;
        command.args(["--batch-messages=50", "--batch-linger=20ms"]);
        let running = Running::start(command).unwrap();
        let some = || async { running.metric("pg_mask_forwarder_received_total").await >= 50 };
        wait_until("some are received", some).await.unwrap();
        // Wherever it is by then.
        tokio::time::sleep(Duration::from_millis(17 * round as u64)).await;
        running.signal(signal).unwrap();
        let ended = running.ended().await.unwrap();
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        let of = |name: &str| ended.summary[name].as_u64().unwrap();
        assert_eq!(of("received"), of("deleted") + of("released"), "{}", ended.summary);
        let [visible, in_flight, _] = way.queue.depth().await.unwrap();
        let rows = way.count("SELECT count(*) FROM user_logins").await as u64;
        assert_eq!((in_flight, visible + rows), (0, 2000), "{} {}", ended.summary, ended.log);
    }
    way.drained().await;
    way.holds_each_once(2000).await;
}

/// A forwarder that holds 30 messages, which its database does not take.
async fn stuck(way: &Way, arguments: &[&str]) -> (Proxy, Running) {
    let proxy = Proxy::before(cluster().await.port()).await.unwrap();
    let mut command = way.forwarder().await;
    command.env(
        "DATABASE_URL",
        format!("postgresql://pgmask_forwarder@127.0.0.1:{}/{}", proxy.port(), way.name),
    );
    let running = Running::start({
        command.args(arguments);
        command
    })
    .unwrap();
    let ready = || async { running.get("/readyz").await.contains("200 OK") };
    wait_until("it is ready", ready).await.unwrap();
    proxy.set(Fault::Stall);
    way.queue.send(&logins(0..30)).await.unwrap();
    let held = || async { running.metric("pg_mask_forwarder_in_flight_messages").await == 30 };
    wait_until("all are held", held).await.unwrap();
    (proxy, running)
}

#[tokio::test]
async fn what_is_not_written_in_time_is_visible_again() {
    let way = Way::new("grace").await;
    let (_proxy, running) = stuck(&way, &["--shutdown-grace=300ms"]).await;
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    // More than 30 if a long poll that was left over took some of them, and gave them back.
    assert_eq!(ended.summary["released"], ended.summary["received"], "{}", ended.summary);
    assert_eq!(way.queue.depth().await.unwrap(), [30, 0, 0]);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let way = Way::new("second_signal").await;
    let (_proxy, running) = stuck(&way, &["--shutdown-grace=1h"]).await;
    running.signal(Signal::TERM).unwrap();
    let stopping = || async { running.get("/readyz").await.contains("stopping") };
    wait_until("it stops", stopping).await.unwrap();
    // One that comes within half a second is the same.
    tokio::time::sleep(Duration::from_millis(600)).await;
    running.signal(Signal::INT).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!((ended.code, ended.summary["received"].as_u64()), (Some(128 + 2), Some(30)), "{}", ended.log);
}

/// Process managers and terminals deliver SIGINT twice within milliseconds: nothing was settled or released
/// then, and the exit code was 0.
#[tokio::test]
async fn a_signal_that_is_delivered_twice_is_one() {
    let way = Way::new("same_signal").await;
    let (_proxy, running) = stuck(&way, &["--shutdown-grace=300ms"]).await;
    // Two of different numbers: the kernel makes one of two that are the same and are not taken yet.
    running.signal(Signal::INT).unwrap();
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(ended.summary["released"], ended.summary["received"], "{}", ended.summary);
    assert_eq!(way.queue.depth().await.unwrap(), [30, 0, 0]);
}

#[tokio::test]
async fn a_long_poll_is_not_waited_for() {
    let way = Way::new("long_poll").await;
    let running = Running::start(way.forwarder().await).unwrap();
    let ready = || async { running.get("/readyz").await.contains("200 OK") };
    wait_until("it is ready", ready).await.unwrap();
    let start = Instant::now();
    running.signal(Signal::TERM).unwrap();
    assert_eq!(running.ended().await.unwrap().code, Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "a long poll takes 20 s: {:?}", start.elapsed());
}

#[tokio::test]
async fn a_batch_that_waits_for_more_is_visible_again() {
    let way = Way::new("gathered").await;
    let mut command = way.forwarder().await;
    command.args(["--batch-linger=1h", "--shutdown-grace=0s"]);
    let running = Running::start(command).unwrap();
    way.queue.send(&logins(0..5)).await.unwrap();
    let held = || async { running.metric("pg_mask_forwarder_in_flight_messages").await == 5 };
    wait_until("all are held", held).await.unwrap();
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(way.queue.depth().await.unwrap(), [5, 0, 0], "{}", ended.summary);
}

/// The table is locked, all room is taken, and more has come than there is room for.
#[tokio::test]
async fn what_waits_for_room_is_visible_again() {
    let way = Way::new("no_room").await;
    let mut command = way.forwarder().await;
    command.args(["--max-in-flight-bytes=1MiB", "--receivers=8", "--shutdown-grace=1s"]);
    let running = Running::start(command).unwrap();
    way.queue.send(&logins(0..3)).await.unwrap();
    let small = || async { running.metric("pg_mask_forwarder_deleted_total").await == 3 };
    wait_until("what is small is carried", small).await.unwrap();
    way.database.batch_execute("BEGIN; LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let large: Vec<String> =
        (3..19).map(|n| format!(r#"{{"user_id":"user {n}","x":"{}"}}"#, "x".repeat(200_000))).collect();
    for one in &large {
        way.queue.send(std::slice::from_ref(one)).await.unwrap();
    }
    // Three are held, or an answer is held back, unread, because there is no room for it: how many messages an answer brings
    // is the queue's affair.
    let full = || async {
        let held = running.metric("pg_mask_forwarder_in_flight_bytes").await;
        let [_, handed_out, _] = way.queue.depth().await.unwrap();
        held > 600_000 || held > 0 && handed_out * 200_000 > held
    };
    wait_until("room is short", full).await.unwrap();
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(way.queue.depth().await.unwrap(), [16, 0, 0], "{}", ended.summary);
    way.database.batch_execute("COMMIT").await.unwrap();
    way.drained().await;
    way.holds_each_once(19).await;
}
