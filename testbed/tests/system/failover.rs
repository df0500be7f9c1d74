//! A failover loses nothing where commits wait for the standby that is promoted. `forwarder check` warns where they
//! don't (`check.rs`).

use crate::common::{count, localstack, logins};
use testbed::cluster::Cluster;
use testbed::forwarder::{self, Running};
use testbed::guardian::wait_until;
use testbed::proxy::{Fault, Proxy};
use testbed::queue::Queue;

const LOGINS: usize = 2_000;

/// What the primary commits while nothing reaches the standby is gone with the primary, and its messages are deleted.
#[tokio::test]
async fn a_synchronous_standby_that_is_promoted_has_every_login() {
    let mut primary = Cluster::start(&["wal_level = replica", "max_wal_senders = 4"]).await.unwrap();
    let client = primary.database("failover").await.unwrap();
    let standby = primary.standby().await.unwrap();
    let network = Proxy::before(primary.port()).await.unwrap();
    let reader = standby.connect("failover").await.unwrap();
    let from = format!("host=127.0.0.1 port={} user=postgres application_name=standby", network.port());
    reader.batch_execute(&format!("ALTER SYSTEM SET primary_conninfo = '{from}'")).await.unwrap();
    reader.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (standby)'").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let until = async |what: &str, sql: &str| {
        wait_until(what, || async { count(&client, sql).await > 0 }).await.unwrap();
    };
    let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'";
    until("the standby is synchronous", synchronous).await;

    let queue = Queue::create(localstack().await, "failover").await.unwrap();
    queue.send(&logins(0..LOGINS)).await.unwrap();
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port());
    let url = format!("postgresql://pgmask_forwarder@{hosts}/failover");
    let mut command = forwarder::command(localstack().await, "failover", &url).unwrap();
    command.args(["--batch-messages=20", "--batch-linger=1ms"]);
    let running = Running::start(command).unwrap();
    let rows = "SELECT count(*) FROM user_logins";
    let some = || async { count(&reader, rows).await > 100 };
    wait_until("the standby has some", some).await.unwrap();

    network.set(Fault::Stall);
    until("commits wait", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").await;
    let had = count(&reader, rows).await;
    assert!(had < LOGINS as i64, "all were through too soon to try anything");
    primary.stop("KILL").unwrap();
    assert_eq!(count(&reader, "SELECT pg_promote()::int::bigint").await, 1);

    let all = || async { count(&reader, rows).await >= LOGINS as i64 };
    wait_until("all are in the new primary", all).await.unwrap();
    wait_until("all are deleted", || async { queue.depth().await.unwrap() == [0, 0, 0] }).await.unwrap();
    assert_eq!(count(&reader, rows).await, LOGINS as i64);
    assert_eq!(count(&reader, "SELECT count(DISTINCT user_id) FROM user_logins").await, LOGINS as i64);
    let masked = "SELECT count(*) FROM user_logins WHERE masked_ip = mask_pii('198.51.100.7')";
    assert_eq!(count(&reader, masked).await, LOGINS as i64, "the standby has the keyring");
    drop(running);
}
