//! Any number of forwarders may share a queue.

use crate::common::{Way, logins};
use testbed::forwarder;
use tokio::task::JoinSet;

async fn share(name: &'static str, forwarders: usize) {
    let way = Way::new(name).await;
    way.queue.send(&logins(0..1000)).await.unwrap();
    let mut running = JoinSet::new();
    for _ in 0..forwarders {
        let mut command = way.drain().await;
        command.args(["--batch-messages=50", "--batch-linger=5ms"]);
        running.spawn(forwarder::run(command));
    }
    let mut inserted = 0;
    for ended in running.join_all().await {
        let ended = ended.unwrap();
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        inserted += ended.summary["inserted"].as_u64().unwrap();
    }
    assert_eq!(inserted, 1000);
    way.holds_each_once(1000).await;
}

#[tokio::test]
async fn two_forwarders() {
    share("two_forwarders", 2).await;
}

#[tokio::test]
async fn eight_forwarders() {
    share("eight_forwarders", 8).await;
}
