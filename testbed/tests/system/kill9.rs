//! Killed at any moment, again and again, forwarders lose nothing and double nothing.

use crate::common::{Way, logins};
use rustix::process::Signal;
use std::time::Duration;
use testbed::forwarder::Running;
use testbed::guardian::wait_until;

#[tokio::test]
async fn the_sum_is_right_however_often_it_is_killed() {
    let way = Way::new("kill9").await;
    way.queue.send(&logins(0..1500)).await.unwrap();
    for round in 0..6 {
        let mut command = way.forwarder().await;
        // What a killed one held comes again soon.
        command.args(["--visibility-timeout=1s", "--batch-messages=30", "--batch-linger=5ms"]);
        let running = Running::start(command).unwrap();
        let some = || async { running.metric("pg_mask_forwarder_inserted_total").await > 0 };
        wait_until("some are in", some).await.unwrap();
        // Wherever it is by then: writing, committed, deleting.
        tokio::time::sleep(Duration::from_millis(7 * round)).await;
        running.signal(Signal::KILL).unwrap();
        assert_eq!(running.ended().await.unwrap().code, None);
    }
    way.drained().await;
    way.holds_each_once(1500).await;
}
