//! Memory is bounded, however large messages are and however long the database takes.

use crate::common::{Way, cluster};
use testbed::forwarder::Running;
use testbed::guardian::wait_until;
use testbed::proxy::{Fault, Proxy};

const MESSAGES: usize = 120;
const BODY: usize = 1 << 20;
const MOST_BYTES: u64 = 64 << 20;
const MOST_RESIDENT: u64 = 200 << 20;

/// The most bytes that were resident at once (proc(5), VmHWM).
pub(crate) fn most_resident(running: &Running) -> u64 {
    let pid = running.pid().unwrap().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn bodies_of_one_mebibyte_stay_within_the_bound() {
    let way = Way::new("large_bodies").await;
    let padding = "x".repeat(BODY - 100);
    for n in 0..MESSAGES {
        let body = format!(r#"{{"user_id":"user {n}","unknown":"{padding}"}}"#);
        way.queue.send(&[body]).await.unwrap();
    }
    let proxy = Proxy::before(cluster().await.port()).await.unwrap();
    let mut command = way.forwarder().await;
    let url = format!("postgresql://pgmask_forwarder@127.0.0.1:{}/{}", proxy.port(), way.name);
    command.env("DATABASE_URL", url).arg("--receivers=20");
    let running = Running::start(command).unwrap();
    // The database takes nothing, so that as much is held as may be.
    way.rows(1).await;
    proxy.set(Fault::Stall);
    let full = || async {
        let bytes = running.metric("pg_mask_forwarder_in_flight_bytes").await;
        assert!(bytes <= MOST_BYTES, "{bytes}");
        bytes > MOST_BYTES / 2
    };
    wait_until("much is held", full).await.unwrap();
    proxy.set(Fault::None);
    way.rows(MESSAGES).await;
    let most = most_resident(&running);
    eprintln!("most resident: {} MiB", most >> 20);
    assert!(most < MOST_RESIDENT, "{} MiB", most >> 20);
    way.drained().await;
    way.holds_each_once(MESSAGES).await;
}
