//! What answers in the place of PostgreSQL may be broken or hostile: memory stays bounded, no password is
//! given away, the error says what is wrong, and the forwarder goes on when the real server is back.

use super::memory::most_resident;
use crate::common::{Way, cluster, ends_with, logins};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use testbed::forwarder::{self, Running};
use testbed::guardian::wait_until;
use testbed::proxy::{Endless, Fault, Proxy};

const MOST_RESIDENT: u64 = 250 << 20;

fn endless(to: &'static str, start: &[u8], piece: Vec<u8>, pause: Duration) -> Fault {
    Fault::Endless(Endless { to, start: start.to_vec(), piece, pause })
}

async fn proxy() -> Proxy {
    Proxy::before(cluster().await.port()).await.unwrap()
}

fn url(way: &Way, proxy: &Proxy) -> String {
    format!(
        "postgresql://pgmask_forwarder:canary-word@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        way.name
    )
}

#[tokio::test]
async fn at_login_nothing_but_postgresql_will_do() {
    let way = Way::new("hostile_login").await;
    let zeros = vec![0; 1 << 16];
    // A notice, a short one, each whole.
    let notice = [&b"N\0\0\0\x0bSNOTE\0\0"[..]; 1024].concat();
    let (lets_in, wants_clear) = (b"R\0\0\0\x08\0\0\0\0", b"R\0\0\0\x08\0\0\0\x03");
    for (methods, start, piece, saying) in [
        ("none", &b"N\x7f\xff\xff\xff"[..], zeros.clone(), "an answer of more than 64 MiB"),
        ("none", lets_in, notice, "an answer of more than 10000 messages"),
        ("none", b"HTTP/1.1 400 Bad Request\r\n\r\n", zeros, "does not speak PostgreSQL's protocol"),
        ("scram-sha-256", wants_clear, Vec::new(), "asks for authentication by password, which require_auth"),
        ("scram-sha-256", lets_in, Vec::new(), "asks for no authentication, which require_auth"),
    ] {
        let proxy = proxy().await;
        proxy.set(endless("", start, piece, Duration::ZERO));
        let mut command = way.drain().await;
        command.env("DATABASE_URL", url(&way, &proxy)).env("PGREQUIREAUTH", methods);
        // It is the size that ends it, however slow the machine is.
        command.env("PGCONNECT_TIMEOUT", "100");
        let ended = ends_with(command, 78, saying).await;
        assert!(!ended.log.contains("canary"), "{}", ended.log);
    }
    // A message that goes on for ever, slowly.
    let proxy = proxy().await;
    proxy.set(endless("", b"R\0\0\x10\0", vec![0], Duration::from_millis(500)));
    let mut command = way.drain().await;
    command.env("DATABASE_URL", url(&way, &proxy)).env("PGCONNECT_TIMEOUT", "2");
    ends_with(command, 69, "did not answer within 2 s").await;
}

/// A server that never ended a message filled the memory.
#[tokio::test]
async fn an_answer_to_a_batch_is_bounded() {
    let way = Way::new("hostile_answer").await;
    let proxy = proxy().await;
    let mut command = way.forwarder().await;
    command.env("DATABASE_URL", url(&way, &proxy));
    let running = Running::start(command).unwrap();
    let ready = || async { running.get("/readyz").await.contains("200 OK") };
    wait_until("it is ready", ready).await.unwrap();
    let row = [&b"D\0\x01\0\x04"[..], &vec![0; 1 << 16]].concat();
    for (number, (start, piece)) in
        [(&b"D\x7f\xff\xff\xff"[..], vec![0; 1 << 16]), (b"", row)].into_iter().enumerate()
    {
        proxy.set(endless("ingest_login_batch", start, piece, Duration::ZERO));
        proxy.cut();
        let errors = "pg_mask_forwarder_database_errors_total";
        way.queue.send(&logins(10 * number..10 * number + 10)).await.unwrap();
        let is_not = || async { !running.get("/readyz").await.contains("200 OK") };
        wait_until(errors, is_not).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await; // it tries again and again
        let most = most_resident(&running);
        assert!(most < MOST_RESIDENT, "{} MiB", most >> 20);
        proxy.set(Fault::None);
        proxy.cut();
        way.rows(10 * number + 10).await;
    }
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    way.drained().await;
    way.holds_each_once(20).await;
}

#[tokio::test]
async fn an_answer_that_never_ends_does_not_delay_the_end() {
    let way = Way::new("dribbling_database").await;
    let proxy = proxy().await;
    let mut command = way.forwarder().await;
    command.env("DATABASE_URL", url(&way, &proxy)).arg("--shutdown-grace=2s");
    let running = Running::start(command).unwrap();
    let ready = || async { running.get("/readyz").await.contains("200 OK") };
    wait_until("it is ready", ready).await.unwrap();
    proxy.set(endless("ingest_login_batch", b"D\0\x10\0\0", vec![0], Duration::from_millis(500)));
    way.queue.send(&logins(0..10)).await.unwrap();
    let held = || async { running.metric("pg_mask_forwarder_in_flight_messages").await == 10 };
    wait_until("they are held", held).await.unwrap();
    let told = Instant::now();
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}: {}", told.elapsed(), ended.log);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(way.queue.depth().await.unwrap(), [10, 0, 0], "{}", ended.log);
}

#[tokio::test]
async fn check_says_what_does_not_answer() {
    let way = Way::new("dribbling_check").await;
    let proxy = proxy().await;
    proxy.set(endless("server_version", b"T\0\x10\0\0", vec![0], Duration::from_millis(500)));
    let mut command = way.forwarder().await;
    command.env("DATABASE_URL", url(&way, &proxy)).arg("check");
    let ended = forwarder::run(command).await.unwrap();
    assert_eq!(ended.code, Some(69), "{}{}", ended.printed, ended.log);
    assert!(ended.printed.contains("✗ database"), "{}", ended.printed);
}
