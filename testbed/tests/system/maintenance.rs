//! The ledger is kept in shape by the forwarder: nobody has to call `pgmask.maintain()`.

use crate::common::Way;
use testbed::forwarder::Running;
use testbed::guardian::wait_until;

#[tokio::test]
async fn a_forwarder_empties_the_ledger_at_its_start() {
    let way = Way::new("maintenance").await;
    way.database
        .batch_execute(
            "INSERT INTO pgmask.ledger (message_id, slot, taken_day)
             SELECT gen_random_uuid(), 7, current_date - age FROM unnest(ARRAY[0, 20, 40]) AS age",
        )
        .await
        .unwrap();
    let running = Running::start(way.forwarder().await).unwrap();
    let left = "SELECT count(*) FROM pgmask.ledger";
    wait_until("old entries are gone", || async { way.count(left).await == 1 }).await.unwrap();
    let healthy = "SELECT count(*) FROM pgmask.health WHERE item LIKE '%maintain%' AND state <> 'ok'";
    assert_eq!(way.count(healthy).await, 0);
    drop(running);
}
