//! Clients of the metrics port can't keep it from others.

use crate::common::Way;
use testbed::forwarder::Running;
use testbed::guardian::wait_until;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Sixteen clients that send and never read made /healthz dead.
#[tokio::test]
async fn clients_that_never_read_keep_nobody_out() {
    let way = Way::new("never_read").await;
    let running = Running::start(way.forwarder().await).unwrap();
    let alive = || async { running.get("/healthz").await.contains("200 OK") };
    wait_until("it listens", alive).await.unwrap();
    let mut clients = Vec::new();
    for place in 0..64 {
        let mut client = TcpStream::connect(("127.0.0.1", running.metrics_port())).await.unwrap();
        // Half a head, a whole request that nobody waits for, or many.
        let requests = ["GET /metr", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"][usize::from(place % 3 > 0)];
        let times = if place % 3 == 2 { 1000 } else { 1 };
        // It may be closed already.
        let _ = client.write_all(requests.repeat(times).as_bytes()).await;
        clients.push(client);
        if place % 8 == 7 {
            let answer =
                tokio::time::timeout(std::time::Duration::from_secs(5), running.get("/healthz")).await;
            assert!(answer.unwrap().contains("200 OK"));
        }
    }
    let ready = || async { running.get("/readyz").await.contains("200 OK") };
    wait_until("it is ready", ready).await.unwrap();
    drop(clients);
}
