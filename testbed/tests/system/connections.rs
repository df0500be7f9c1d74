//! One writer's trouble is not the database's outage: a batch whose writer can't connect goes in over a
//! connection that works.

use crate::common::{Way, cluster, logins};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use testbed::forwarder::Running;
use testbed::guardian::wait_until;
use testbed::proxy::{Fault, Proxy};

/// Carries everything and is ready all the time.
async fn carries_all(way: &Way, running: Running) {
    for start in [0, 250] {
        way.queue.send(&logins(start..start + 250)).await.unwrap();
        way.rows(start + 250).await;
        let ready = running.get("/readyz").await;
        assert!(ready.contains("200 OK"), "{ready}");
    }
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!((ended.code, ended.summary["deleted"].as_u64()), (Some(0), Some(500)), "{}", ended.log);
    way.holds_each_once(500).await;
}

/// 480 of 500 went in, then nothing more, and /readyz said 503 beside a healthy idle connection.
#[tokio::test]
async fn a_role_that_may_have_one_connection_is_enough_for_two_writers() {
    let way = Way::new("one_connection").await;
    way.database
        .batch_execute(
            "DROP ROLE IF EXISTS one_connection;
             CREATE ROLE one_connection LOGIN CONNECTION LIMIT 1 IN ROLE pgmask_ingester",
        )
        .await
        .unwrap();
    let mut command = way.forwarder().await;
    command.env("DATABASE_URL", cluster().await.url("one_connection", way.name));
    command.args(["--writers=2", "--batch-messages=20"]);
    let running = Running::start(command).unwrap();
    let ready = || async { running.get("/readyz").await.contains("200 OK") };
    wait_until("it is ready", ready).await.unwrap();
    carries_all(&way, running).await;
}

/// The first of two hosts is refused at the start; later it takes connections and says nothing, so opening
/// one more lasts 20 s.
#[tokio::test]
async fn a_host_that_is_half_dead_holds_up_no_batch() {
    let way = Way::new("half_dead_host").await;
    let port = cluster().await.port();
    let proxy = Proxy::before(port).await.unwrap();
    proxy.set(Fault::Refuse);
    let hosts = format!("127.0.0.1:{},127.0.0.1:{port}", proxy.port());
    let url = format!("postgresql://pgmask_forwarder@{hosts}/{}?connect_timeout=20", way.name);
    let mut command = way.forwarder().await;
    command.env("DATABASE_URL", url).args(["--writers=2", "--batch-messages=20"]);
    let running = Running::start(command).unwrap();
    let ready = || async { running.get("/readyz").await.contains("200 OK") };
    wait_until("it is ready", ready).await.unwrap();
    proxy.set(Fault::Stall);
    let start = Instant::now();
    carries_all(&way, running).await;
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}
