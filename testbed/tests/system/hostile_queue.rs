//! A queue server that is broken or hostile costs time and nothing else: memory stays bounded, the log says
//! once what is wrong, and the forwarder ends when it is told to.

use super::memory::most_resident;
use crate::common::{Way, localstack, logins, texts, unseal_all};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use testbed::forwarder::Running;
use testbed::guardian::wait_until;
use testbed::proxy::{Endless, Fault, Proxy};

const RECEIVE: &str = "AmazonSQS.ReceiveMessage";
const MOST_RESIDENT: u64 = 300 << 20;

/// A forwarder that is ready and whose way to the queue is a proxy.
async fn through_proxy(way: &Way, arguments: &[&str]) -> (Proxy, Running) {
    let endpoint = localstack().await.endpoint();
    let proxy = Proxy::before(endpoint.rsplit(':').next().unwrap().parse().unwrap()).await.unwrap();
    let mut command = way.forwarder().await;
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", proxy.port())).args(arguments);
    let running = Running::start(command).unwrap();
    let ready = || async { running.get("/readyz").await.contains("200 OK") };
    wait_until("it is ready", ready).await.unwrap();
    (proxy, running)
}

/// So many receives fail from now on.
async fn fail_to_receive(running: &Running, receives: u64) {
    let errors = || running.metric("pg_mask_forwarder_receive_errors_total");
    let before = errors().await;
    wait_until("receives fail", || async { errors().await >= before + receives }).await.unwrap();
}

fn endless(head: &str, start: &str, piece: Vec<u8>, pause: Duration) -> Fault {
    let start =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\n{head}\r\n\r\n{start}");
    Fault::Endless(Endless { to: RECEIVE, start: start.into_bytes(), piece, pause })
}

/// Answers that no memory could hold, one after the other; after each the queue is served again.
#[tokio::test]
async fn answers_are_bounded_in_bytes_values_and_messages() {
    let way = Way::new("hostile_queue").await;
    // A long poll that the proxy cuts goes on at the queue, and may take messages that reach nobody.
    let (proxy, running) = through_proxy(&way, &["--receivers=4", "--visibility-timeout=1s"]).await;
    let spaces = format!("10000\r\n{}\r\n", " ".repeat(1 << 16)).into_bytes();
    let answer = |body: &str| Fault::answer(RECEIVE, "200 OK", body);
    let xml = format!(
        "<ReceiveMessageResponse><ReceiveMessageResult>{}</ReceiveMessageResult></ReceiveMessageResponse>",
        "<Message/>".repeat(2_000_000)
    );
    let eleven = [r#"{"MessageId":"m","ReceiptHandle":"h","Body":"{}"}"#; 11].join(",");
    let faults = [
        (endless("Transfer-Encoding: chunked", "", spaces, Duration::ZERO), "larger than 64 MiB"),
        (
            endless("Content-Length: 99999999999", "{", vec![b' '; 1 << 16], Duration::ZERO),
            "larger than 64 MiB",
        ),
        (answer(&format!("{{\"Messages\":[{}{{}}]}}", "{},".repeat(200_000))), "more than 4096 values"),
        (answer(&"[".repeat(1 << 20)), "more than 16 deep"),
        (answer(&xml), "more than 4096 values"),
        (answer(&format!("{{\"Messages\":[{eleven}]}}")), "gave 11 messages where 10 were asked for"),
    ];
    let mut said = Vec::new();
    for (number, (fault, saying)) in faults.into_iter().enumerate() {
        proxy.set(fault);
        proxy.cut();
        // More than there are receivers: the connections that were cut are errors, too.
        fail_to_receive(&running, 5).await;
        said.push(saying);
        proxy.set(Fault::None);
        way.queue.send(&logins(10 * number..10 * number + 10)).await.unwrap();
        way.rows(10 * number + 10).await;
        let most = most_resident(&running);
        assert!(most < MOST_RESIDENT, "{saying}: {} MiB", most >> 20);
    }
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    for saying in said {
        assert!(ended.log.contains(saying), "{saying} in {}", ended.log);
    }
    way.drained().await;
    way.holds_each_once(60).await;
}

/// Sixty-four deletes may be under way: answers of 60 MiB to each filled gigabytes.
#[tokio::test]
async fn answers_to_deletes_are_small() {
    let way = Way::new("hostile_deletes").await;
    let (proxy, running) = through_proxy(&way, &[]).await;
    let start =
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: 62914560\r\n\r\n";
    proxy.set(Fault::Endless(Endless {
        to: "AmazonSQS.DeleteMessageBatch",
        start: start.as_bytes().to_vec(),
        piece: vec![b' '; 1 << 20],
        pause: Duration::ZERO,
    }));
    proxy.cut();
    way.queue.send(&logins(0..700)).await.unwrap();
    let failed = || async { running.metric("pg_mask_forwarder_delete_failures_total").await >= 1400 };
    wait_until("deletes fail", failed).await.unwrap();
    let most = most_resident(&running);
    assert!(most < MOST_RESIDENT, "{} MiB", most >> 20);
    proxy.set(Fault::None);
    proxy.cut();
    way.drained().await;
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert!(ended.log.contains("larger than 1 MiB"), "{}", ended.log);
    way.holds_each_once(700).await;
}

/// An answer that dribbles a byte a second stalled a receiver in silence, and survived SIGTERM.
#[tokio::test]
async fn an_answer_that_never_ends_is_given_up_and_does_not_delay_the_end() {
    let way = Way::new("dribbling_queue").await;
    let (proxy, running) = through_proxy(&way, &["--receivers=1", "--shutdown-grace=3s"]).await;
    proxy.set(endless("Content-Length: 100000", "{", vec![b' '], Duration::from_secs(1)));
    proxy.cut();
    fail_to_receive(&running, 1).await; // the connection that was cut
    fail_to_receive(&running, 1).await;
    let told = Instant::now();
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}: {}", told.elapsed(), ended.log);
    let saying = format!(
        "the queue's answer to ReceiveMessage at http://127.0.0.1:{} can't be used: the answer did not come to its end within 30 s",
        proxy.port()
    );
    assert_eq!(ended.log.matches(&saying).count(), 1, "{}", ended.log);
}

/// Half of a surrogate pair in a body made the whole answer one that the SDK can't read, again and again: nothing
/// that came with it was ever taken in.
#[tokio::test]
async fn a_body_that_is_no_text_stops_no_other() {
    let way = Way::new("no_text").await;
    let (proxy, running) = through_proxy(&way, &["--receivers=1", "--visibility-timeout=1s"]).await;
    let message = |n: usize, body: &str| {
        format!(
            r#"{{"MessageId":"00000000-0000-4000-8000-00000000000{n}","ReceiptHandle":"{n}","Body":"{body}"}}"#
        )
    };
    let messages = [
        message(1, r#"{\"user_id\":\"first\"}"#),
        message(2, r#"{\"user_id\":\"half \ud83d\"}"#),
        message(3, r#"{\"user_id\":\"😀 \ud83d\ude00 \\ud83d\\ude00\"}"#),
        message(4, "{\n\t\\\"user_id\\\": \\\"as it is\\\"}"),
        message(5, r#"\udfff"#),
        message(6, r#"{\"user_id\":\"last\"}"#),
    ];
    proxy.set(Fault::answer(RECEIVE, "200 OK", &format!("{{\"Messages\":[{}]}}", messages.join(","))));
    proxy.cut();
    way.rows(4).await;
    let kept = "SELECT count(*) FROM pgmask.quarantine WHERE reason = 'invalid_json'";
    assert_eq!(way.count(kept).await, 2);
    let users = texts(&way.database, "SELECT user_id FROM user_logins ORDER BY user_id").await;
    assert_eq!(users, ["as it is", "first", "last", "😀 😀 😀"]);
    let half = br#"\x7b22757365725f6964223a2268616c6620eda0bd227d"#;
    assert_eq!(unseal_all(&way.database).await, [half.to_vec(), br"\xedbfbf".to_vec()]);
    proxy.set(Fault::None);
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(!ended.log.contains("half") && !ended.log.contains("7573"), "{}", ended.log);
}
