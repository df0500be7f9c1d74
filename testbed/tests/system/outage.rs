//! An outage of either end is waited out: nothing is lost or doubled, and no message is received
//! again and again meanwhile.

use crate::common::{COUNTS, Way, cluster, count, localstack, logins, slow_down};
use rustix::process::Signal;
use std::time::Duration;
use testbed::cluster::Cluster;
use testbed::forwarder::{self, Ended, Running};
use testbed::guardian::wait_until;
use testbed::proxy::{Fault, Proxy};
use testbed::queue::Queue;

/// Stops a forwarder and expects it to have settled all that it received, each message once.
async fn stops(running: Running, received: u64) -> Ended {
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let of = |name: &str| ended.summary[name].as_u64().unwrap();
    assert_eq!((of("received"), of("deleted")), (received, received), "{}\n{}", ended.summary, ended.log);
    ended
}

async fn postgresql_is_out_for(name: &str, time: Duration) {
    let mut cluster = Cluster::start(&[]).await.unwrap();
    drop(cluster.database(name).await.unwrap());
    let queue = Queue::create(localstack().await, name).await.unwrap();
    let url = cluster.url("pgmask_forwarder", name);
    let mut command = forwarder::command(localstack().await, name, &url).unwrap();
    // Shorter than the long outage: what is held has to be renewed.
    command.arg("--visibility-timeout=20s");
    let running = Running::start(command).unwrap();
    queue.send(&logins(0..300)).await.unwrap();
    let some = || async { running.metric("pg_mask_forwarder_inserted_total").await > 0 };
    wait_until("the first are in", some).await.unwrap();

    cluster.stop("KILL").unwrap();
    queue.send(&logins(300..600)).await.unwrap();
    let noticed = || async {
        let held = running.metric("pg_mask_forwarder_in_flight_messages").await;
        held > 0 && running.metric("pg_mask_forwarder_database_errors_total{class=\"08\"}").await > 0
    };
    wait_until("the outage is noticed", noticed).await.unwrap();
    tokio::time::sleep(time).await;
    assert!(running.get("/healthz").await.contains("200 OK"));
    cluster.restart().await.unwrap();

    let database = cluster.connect(name).await.unwrap();
    let users = "SELECT count(DISTINCT user_id) FROM user_logins";
    let all = || async { count(&database, users).await == 600 };
    wait_until("all are in", all).await.unwrap();
    let settled = || async { queue.depth().await.unwrap() == [0, 0, 0] };
    wait_until("all are deleted", settled).await.unwrap();
    assert_eq!(count(&database, "SELECT count(*) FROM user_logins").await, 600);
    // No message was received twice.
    stops(running, 600).await;
}

#[tokio::test]
async fn postgresql_is_out_for_a_second() {
    postgresql_is_out_for("out_1_s", Duration::from_secs(1)).await;
}

#[tokio::test]
async fn postgresql_is_out_for_ninety_seconds() {
    postgresql_is_out_for("out_90_s", Duration::from_secs(90)).await;
}

/// A forwarder whose way to the database is a proxy.
async fn through_proxy(way: &Way, arguments: &[&str]) -> (Proxy, Running) {
    let proxy = Proxy::before(cluster().await.port()).await.unwrap();
    let url = format!("postgresql://pgmask_forwarder@127.0.0.1:{}/{}", proxy.port(), way.name);
    let mut command = way.forwarder().await;
    command.env("DATABASE_URL", url).args(arguments);
    let running = Running::start(command).unwrap();
    let ready = || async { running.get("/readyz").await.contains("200 OK") };
    wait_until("it is ready", ready).await.unwrap();
    (proxy, running)
}

/// Once all is settled: each login once.
async fn recovers(way: &Way, running: Running, logins: usize) -> Ended {
    way.rows(logins).await;
    let settled = || async { way.queue.depth().await.unwrap() == [0, 0, 0] };
    wait_until("all are deleted", settled).await.unwrap();
    way.holds_each_once(logins).await;
    stops(running, logins as u64).await
}

const BUSY: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = 'pgmask_forwarder' AND state = 'active'";

#[tokio::test]
async fn a_connection_is_cut_in_the_midst_of_a_statement() {
    let way = Way::new("cut_statement").await;
    let (proxy, running) = through_proxy(&way, &[]).await;
    slow_down(&way.database, 0.5).await;
    way.queue.send(&logins(0..20)).await.unwrap();
    wait_until("a batch is under way", || async { way.count(BUSY).await > 0 }).await.unwrap();
    proxy.cut();
    recovers(&way, running, 20).await;
}

#[tokio::test]
async fn a_connection_is_cut_in_the_midst_of_a_commit() {
    let way = Way::new("cut_commit").await;
    let (proxy, running) = through_proxy(&way, &["--writers=1"]).await;
    // The commit happens, and nobody hears of it.
    proxy.set(Fault::Truncate(0));
    way.queue.send(&logins(0..20)).await.unwrap();
    way.rows(1).await;
    proxy.set(Fault::None);
    let ended = recovers(&way, running, 20).await;
    assert!(ended.summary["duplicate"].as_u64() > Some(0), "{}", ended.summary);
}

#[tokio::test]
async fn the_database_falls_silent() {
    let way = Way::new("silent").await;
    let (proxy, running) = through_proxy(&way, &["--statement-timeout=1s"]).await;
    proxy.set(Fault::Stall);
    way.queue.send(&logins(0..20)).await.unwrap();
    let noticed =
        || async { running.metric("pg_mask_forwarder_database_errors_total{class=\"08\"}").await > 0 };
    wait_until("silence counts as an outage", noticed).await.unwrap();
    proxy.set(Fault::None);
    proxy.cut();
    recovers(&way, running, 20).await;
}

#[tokio::test]
async fn the_database_is_a_standby_for_a_while() {
    let way = Way::new("read_only").await;
    let (_proxy, running) = through_proxy(&way, &[]).await;
    let read_only = "ALTER DATABASE read_only SET default_transaction_read_only = on";
    way.database.batch_execute(read_only).await.unwrap();
    let gone = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND usename = 'pgmask_forwarder'";
    way.count(gone).await;
    way.queue.send(&logins(0..20)).await.unwrap();
    // One that takes no writes is not connected to.
    let noticed =
        || async { running.metric("pg_mask_forwarder_database_errors_total{class=\"08\"}").await > 0 };
    wait_until("no server takes writes", noticed).await.unwrap();
    let again = "ALTER DATABASE read_only RESET default_transaction_read_only";
    way.database.batch_execute(again).await.unwrap();
    recovers(&way, running, 20).await;
}

#[tokio::test]
async fn the_queue_fails_in_every_way() {
    let way = Way::new("queue_fails").await;
    let proxy = Proxy::before(localstack().await.port()).await.unwrap();
    let mut command = way.forwarder().await;
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", proxy.port()));
    // The SDK's own tries take time, and ours are what is tried here.
    command.env("AWS_MAX_ATTEMPTS", "1");
    // What an answer that was cut short brought comes again soon.
    command.arg("--visibility-timeout=2s");
    let running = Running::start(command).unwrap();
    let faults = [
        Fault::Refuse,
        Fault::answer("", "500 Internal Server Error", "{}"),
        Fault::answer("", "503 Service Unavailable", "<html>later</html>"),
        Fault::answer("", "400 Bad Request", r#"{"__type":"com.amazonaws.sqs#RequestThrottled"}"#),
        Fault::answer("", "200 OK", r#"{"Messages":[{"Body":"#),
        Fault::Truncate(100),
    ];
    let all = faults.len() + 1;
    for (number, fault) in faults.into_iter().enumerate() {
        way.queue.send(&logins(10 * number..10 * number + 10)).await.unwrap();
        way.rows(10 * number + 10).await;
        let before = running.metric("pg_mask_forwarder_receive_errors_total").await;
        proxy.set(fault);
        proxy.cut();
        let fails = || async { running.metric("pg_mask_forwarder_receive_errors_total").await > before };
        wait_until("a receive fails", fails).await.unwrap();
        proxy.set(Fault::None);
    }
    proxy.set(Fault::Slow(Duration::from_millis(300)));
    way.queue.send(&logins(10 * all - 10..10 * all)).await.unwrap();
    way.rows(10 * all).await;
    way.drained().await;
    way.holds_each_once(10 * all).await;
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let sum: u64 = COUNTS[1..4].iter().map(|name| ended.summary[*name].as_u64().unwrap()).sum();
    assert_eq!(ended.summary["received"].as_u64(), Some(sum), "{}", ended.summary);
}

#[tokio::test]
async fn a_queue_that_is_deleted_and_made_again_is_served_again() {
    let way = Way::new("deleted_queue").await;
    let running = Running::start(way.forwarder().await).unwrap();
    way.queue.send(&logins(0..10)).await.unwrap();
    way.rows(10).await;
    // What is still being deleted would be told, too.
    way.drained().await;
    way.queue.client.delete_queue().queue_url(&way.queue.url).send().await.unwrap();
    let fails = || async { running.metric("pg_mask_forwarder_receive_errors_total").await > 0 };
    wait_until("a receive fails", fails).await.unwrap();
    way.queue.client.create_queue().queue_name(way.name).send().await.unwrap();
    way.queue.send(&logins(10..20)).await.unwrap();
    way.rows(20).await;
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(ended.log.matches("Check the queue's name").count(), 1, "once a minute: {}", ended.log);
}

/// Whoever asks whether it is ready must not fill the server with sessions that wait for a lock.
#[tokio::test]
async fn a_locked_table_leaves_nothing_waiting_at_the_server() {
    let way = Way::new("locked").await;
    let running = Running::start(way.forwarder().await).unwrap();
    let is_ready = || async { running.get("/readyz").await.contains("200 OK") };
    wait_until("it is ready", is_ready).await.unwrap();
    way.database.batch_execute("BEGIN; LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let is_not = || async { running.get("/readyz").await.contains("gave no answer") };
    wait_until("it is not ready", is_not).await.unwrap();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'locked' AND wait_event_type = 'Lock'";
    let none = || async { way.count(waiting).await == 0 };
    wait_until("nobody waits any more", none).await.unwrap();
    way.database.batch_execute("ROLLBACK").await.unwrap();
    wait_until("it is ready again", is_ready).await.unwrap();
}

/// A receive that had waited for room was sent although the database had failed meanwhile: its messages used
/// up a receive count, and could not be stored.
#[tokio::test]
async fn room_that_comes_free_in_an_outage_is_not_used() {
    let way = Way::new("room_in_outage").await;
    let to_queue = Proxy::before(localstack().await.port()).await.unwrap();
    let entry = |id| format!(r#"{{"Id":"{id}","Code":"InternalError","SenderFault":false}}"#);
    let failed: Vec<String> = (0..10).map(entry).collect();
    let answer = format!(r#"{{"Successful":[],"Failed":[{}]}}"#, failed.join(","));
    to_queue.set(Fault::answer("DeleteMessageBatch", "200 OK", &answer));
    let to_database = Proxy::before(cluster().await.port()).await.unwrap();
    let url = format!("postgresql://pgmask_forwarder@127.0.0.1:{}/{}", to_database.port(), way.name);
    let mut command = way.forwarder().await;
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", to_queue.port()));
    command.env("DATABASE_URL", url);
    command.args(["--receivers=3", "--writers=1", "--max-in-flight=20"]);
    let running = Running::start(command).unwrap();
    let is = |name: &'static str, least: u64| {
        let running = &running;
        async move { running.metric(name).await >= least }
    };
    const RECEIVED: &str = "pg_mask_forwarder_received_total";
    const ERRORS: &str = "pg_mask_forwarder_database_errors_total{class=\"08\"}";

    // Ten are stored and can't be deleted; one receiver waits for more, and two for room for ten.
    way.queue.send(&logins(0..10)).await.unwrap();
    way.rows(10).await;
    to_database.set(Fault::Refuse);
    way.queue.send(&logins(10..20)).await.unwrap();
    wait_until("more are held", || is(RECEIVED, 11)).await.unwrap();
    wait_until("the database is out", || is(ERRORS, 1)).await.unwrap();
    let received = running.metric(RECEIVED).await;
    way.queue.send(&logins(20..30)).await.unwrap();
    to_queue.set(Fault::None);
    wait_until("there is room", || is("pg_mask_forwarder_deleted_total", 10)).await.unwrap();
    let errors = running.metric(ERRORS).await;
    wait_until("the writer has tried again", || is(ERRORS, errors + 2)).await.unwrap();
    assert_eq!(running.metric(RECEIVED).await, received);
    to_database.set(Fault::None);
    recovers(&way, running, 30).await;
}

/// Too many messages in flight, of all consumers of a queue together, are no failure of the queue.
#[tokio::test]
async fn a_queue_that_is_over_its_limit_is_waited_for() {
    let way = Way::new("over_limit").await;
    let proxy = Proxy::before(localstack().await.port()).await.unwrap();
    let answer = r#"{"__type":"com.amazonaws.sqs#OverLimit","message":"Too many messages in flight"}"#;
    proxy.set(Fault::answer("AmazonSQS.ReceiveMessage", "403 Forbidden", answer));
    let mut command = way.drain().await;
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", proxy.port()));
    way.queue.send(&logins(0..10)).await.unwrap();
    let running = Running::start(command).unwrap();
    let ready = || async { running.get("/readyz").await.contains("200 OK") };
    wait_until("it is ready", ready).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await; // several receives
    assert_eq!(running.metric("pg_mask_forwarder_receive_errors_total").await, 0);
    assert_eq!(running.metric("pg_mask_forwarder_receivers").await, 1, "receiving has slowed down");
    proxy.set(Fault::None);
    let ended = running.ended().await.unwrap();
    assert_eq!((ended.code, ended.log.matches("OverLimit").count()), (Some(0), 1), "{}", ended.log);
    way.holds_each_once(10).await;
}
