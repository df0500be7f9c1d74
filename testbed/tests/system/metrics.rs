//! Metrics and health are served where somebody listens, and hold no value of a message.

use crate::common::{Way, cluster, ends_with, localstack, logins};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Command;
use testbed::forwarder::{self, Running};
use testbed::guardian::{RefusedPort, wait_until};
use testbed::prometheus;
use testbed::proxy::{Fault, Proxy};

#[tokio::test]
async fn they_say_what_happens() {
    let way = Way::new("metrics").await;
    way.queue.send(&logins(0..25)).await.unwrap();
    way.queue.send(&["nonsense".to_owned()]).await.unwrap();
    let running = Running::start(way.forwarder().await).unwrap();
    let deleted = || async { running.metric("pg_mask_forwarder_deleted_total").await == 26 };
    wait_until("all are deleted", deleted).await.unwrap();
    for (name, value) in [
        ("pg_mask_forwarder_received_total", 26),
        ("pg_mask_forwarder_inserted_total", 25),
        ("pg_mask_forwarder_duplicate_total", 0),
        ("pg_mask_forwarder_quarantined_total", 1),
        ("pg_mask_forwarder_delete_failures_total", 0),
        ("pg_mask_forwarder_receive_errors_total", 0),
        ("pg_mask_forwarder_in_flight_messages", 0),
        ("pg_mask_forwarder_in_flight_bytes", 0),
        ("pg_mask_forwarder_batch_messages_sum", 26),
    ] {
        assert_eq!(running.metric(name).await, value, "{name}");
    }
    let page = running.get("/metrics").await;
    for name in ["pg_mask_forwarder_batch_duration_seconds_bucket", "pg_mask_forwarder_lag_seconds_count"] {
        assert!(page.contains(name), "{name} in {page}");
    }
    assert!(!page.contains("198.51.100.7") && !page.contains("nonsense"), "{page}");
    assert!(running.get("/healthz").await.contains("200 OK"));
    assert!(running.get("/readyz").await.contains("200 OK"));
    assert!(running.get("/else").await.contains("404"));
}

/// Prometheus' text format unless OpenMetrics is asked for: `promtool check metrics` finds no help for
/// counters where it gets the other.
#[tokio::test]
async fn the_accept_header_decides_the_format() {
    let way = Way::new("metrics_format").await;
    let running = Running::start(way.forwarder().await).unwrap();
    wait_until("it listens", || async { running.get("/healthz").await.contains("200 OK") }).await.unwrap();
    let page = running.get("/metrics").await;
    let (head, text) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    // Each sample has help and a type under its own name, but for the parts of a histogram.
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        let name = sample.split(['{', ' ']).next().unwrap();
        let name =
            ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
        for keyword in ["HELP", "TYPE"] {
            assert!(text.contains(&format!("# {keyword} {name} ")), "no {keyword} of {name} in {text}");
        }
    }
    assert!(text.contains("# TYPE pg_mask_forwarder_received_total counter\n"), "{text}");

    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let page = running.get_with("/metrics", accept).await;
    assert!(
        page.to_lowercase().contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{page}"
    );
    assert!(
        page.contains("# TYPE pg_mask_forwarder_received counter\n") && page.ends_with("# EOF\n"),
        "{page}"
    );
}

/// Type and labels of each metric, by name, in the table of docs/forwarder.md.
fn documented() -> BTreeMap<String, (String, Vec<String>)> {
    let page = std::fs::read_to_string(testbed::root().join("docs/forwarder.md")).unwrap();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `pg_mask_forwarder_")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`').to_owned();
        let (name, labels) = name.trim_end_matches('}').split_once('{').unwrap_or((&name, ""));
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect();
        let kind = cells.next()?.to_owned();
        assert!(cells.next().is_some_and(|unit| name.ends_with("_seconds") == (unit == "seconds")), "{line}");
        Some((format!("pg_mask_forwarder_{name}"), (kind, labels)))
    };
    page.lines().filter_map(row).collect()
}

/// The same as a forwarder serves them.
fn served(page: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let mut metrics = BTreeMap::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let sample = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        let labels = sample.map_or("", |rest| rest.split_once('}').unwrap().0);
        let labels = labels.split(',').filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.split_once('=').unwrap().0.to_owned()).collect();
        metrics.insert(name.to_owned(), (kind.to_owned(), labels));
    }
    metrics
}

/// What is documented is served, under that name, with that type and those labels, and nothing else is; and
/// Prometheus' own tool finds no fault with it.
#[tokio::test]
async fn each_metric_is_documented_and_well_formed() {
    let way = Way::new("metrics_documented").await;
    let proxy = Proxy::before(cluster().await.port()).await.unwrap();
    let mut command = way.forwarder().await;
    let url = format!("postgresql://pgmask_forwarder@127.0.0.1:{}/{}", proxy.port(), way.name);
    command.env("DATABASE_URL", url);
    let running = Running::start(command).unwrap();
    let queue_up = || async { running.metric("pg_mask_forwarder_queue_up").await == 1 };
    wait_until("both ends were looked at", queue_up).await.unwrap();
    // A class of errors is served once there was one.
    proxy.set(Fault::Refuse);
    way.queue.send(&logins(0..1)).await.unwrap();
    let failed = || async { running.get("/metrics").await.contains("database_errors_total{") };
    wait_until("the database has failed", failed).await.unwrap();
    let page = running.get("/metrics").await;
    let text = page.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(served(text), documented());
    assert_eq!(prometheus::faults(text).unwrap(), "");
}

/// What is looked at once in a while, and what is read when it is asked for.
#[tokio::test]
async fn gauges_say_how_both_ends_are() {
    let way = Way::new("metrics_gauges").await;
    let database = Proxy::before(cluster().await.port()).await.unwrap();
    let queue = Proxy::before(localstack().await.port()).await.unwrap();
    let mut command = way.forwarder().await;
    let url = format!("postgresql://pgmask_forwarder@127.0.0.1:{}/{}", database.port(), way.name);
    command.env("DATABASE_URL", url).env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", queue.port()));
    command.args(["--receivers=3", "--max-in-flight=10"]);
    let running = Running::start(command).unwrap();
    let is = |name: &'static str, value: u64| {
        let running = &running;
        async move {
            running.get("/readyz").await; // looks now
            running.metric(&format!("pg_mask_forwarder_{name}")).await == value
        }
    };
    wait_until("the queue is up", || is("queue_up", 1)).await.unwrap();
    assert!(is("database_up", 1).await && is("receivers", 3).await && is("maintain_failures_total", 0).await);
    assert!(is(r#"queue_messages{state="visible"}"#, 0).await);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let maintained = || async {
        let at = running.metric("pg_mask_forwarder_last_maintain_timestamp_seconds").await;
        (now - 60..now + 600).contains(&at)
    };
    wait_until("the ledger was maintained", maintained).await.unwrap();

    database.set(Fault::Refuse);
    way.queue.send(&logins(0..25)).await.unwrap();
    wait_until("the database is down", || is("database_up", 0)).await.unwrap();
    wait_until("they grow older", || async {
        running.metric("pg_mask_forwarder_oldest_message_age_seconds").await >= 2
    })
    .await
    .unwrap();
    // Nothing is received while the database is down.
    let held = running.metric("pg_mask_forwarder_in_flight_messages").await;
    assert!((1..=10).contains(&held), "{held}");
    wait_until("the others wait", || is(r#"queue_messages{state="visible"}"#, 25 - held)).await.unwrap();
    wait_until("they are in flight", || is(r#"queue_messages{state="in_flight"}"#, held)).await.unwrap();
    assert!(is("queue_up", 1).await);

    database.set(Fault::None);
    way.rows(25).await;
    wait_until("the database is up", || is("database_up", 1)).await.unwrap();
    wait_until("none is held", || is("oldest_message_age_seconds", 0)).await.unwrap();
    queue.set(Fault::Refuse);
    wait_until("the queue is down", || is("queue_up", 0)).await.unwrap();
    assert!(!running.get("/metrics").await.contains("queue_messages{"), "what it had then is not known now");
}

#[tokio::test]
async fn not_ready_says_why() {
    let way = Way::new("not_ready").await;
    let proxy = Proxy::before(cluster().await.port()).await.unwrap();
    proxy.set(Fault::Refuse);
    let mut command = way.forwarder().await;
    command.env(
        "DATABASE_URL",
        format!("postgresql://pgmask_forwarder@127.0.0.1:{}/{}", proxy.port(), way.name),
    );
    let running = Running::start(command).unwrap();
    let says = |what: &'static str| {
        let running = &running;
        async move { running.get("/readyz").await.contains(what) }
    };
    wait_until("it waits", || says("have not been reached yet")).await.unwrap();
    assert!(running.get("/readyz").await.contains("503") && running.get("/healthz").await.contains("200 OK"));
    proxy.set(Fault::None);
    wait_until("it is ready", || says("200 OK")).await.unwrap();
    proxy.set(Fault::Refuse);
    wait_until("it is not", || says("the database can't be reached")).await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_ends_it() {
    let way = Way::new("address_taken").await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = way.drain().await;
    command.arg(format!("--metrics-listen={}", taken.local_addr().unwrap()));
    ends_with(command, 78, "--metrics-listen").await;
    let mut command = way.drain().await;
    command.arg("--metrics-listen=everywhere");
    ends_with(command, 2, "--metrics-listen").await;
}

/// `forwarder health` is what containers ask, without any other program in the image.
#[tokio::test]
async fn health_asks_a_running_forwarder() {
    let way = Way::new("health").await;
    let proxy = Proxy::before(cluster().await.port()).await.unwrap();
    let mut command = way.forwarder().await;
    let url = format!("postgresql://pgmask_forwarder@127.0.0.1:{}/{}", proxy.port(), way.name);
    command.env("DATABASE_URL", url);
    let running = Running::start(command).unwrap();
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(forwarder::program().unwrap());
        // A forwarder that listens everywhere is asked on its own machine.
        command.env_clear().env("FORWARDER_METRICS_LISTEN", format!("0.0.0.0:{}", running.metrics_port()));
        command.arg("health").args(arguments);
        command
    };
    let ready = || async { forwarder::run(ask(&[])).await.unwrap().code == Some(0) };
    wait_until("it is ready", ready).await.unwrap();
    assert_eq!(forwarder::run(ask(&[])).await.unwrap().printed, "ready\n");
    proxy.set(Fault::Refuse);
    let is_not = || async { forwarder::run(ask(&[])).await.unwrap().code == Some(69) };
    wait_until("it is not", is_not).await.unwrap();
    ends_with(ask(&[]), 69, "the forwarder is not ready: the database can't be reached").await;
    ends_with(ask(&["--alive"]), 0, "").await;
    let mut command = ask(&[]);
    let refused = RefusedPort::new().unwrap();
    command.env("FORWARDER_METRICS_LISTEN", format!("127.0.0.1:{}", refused.number()));
    ends_with(command, 69, "no forwarder answers").await;
    let mut command = ask(&[]);
    command.env_remove("FORWARDER_METRICS_LISTEN");
    ends_with(command, 78, "FORWARDER_METRICS_LISTEN").await;
}

/// A set-up that is changed later was found by no look: batches failed, and it said that it was ready.
#[tokio::test]
async fn a_set_up_that_becomes_wrong_is_not_ready_until_it_is_mended() {
    let way = Way::new("set_up_changes").await;
    let running = Running::start(way.forwarder().await).unwrap();
    let ready = || async { running.get("/readyz").await.contains("200 OK") };
    wait_until("it is ready", ready).await.unwrap();
    way.database.batch_execute("ALTER TABLE user_logins RENAME COLUMN locale TO language").await.unwrap();
    let says = || async { running.get("/readyz").await.contains("sql/01_user_logins.sql") };
    wait_until("it is not ready, without a message", says).await.unwrap();
    way.queue.send(&logins(0..10)).await.unwrap();
    let held = || async { running.metric("pg_mask_forwarder_in_flight_messages").await == 10 };
    wait_until("they are held", held).await.unwrap();
    wait_until("it is not ready", says).await.unwrap();
    way.database.batch_execute("ALTER TABLE user_logins RENAME COLUMN language TO locale").await.unwrap();
    way.rows(10).await;
    wait_until("it is ready again", ready).await.unwrap();
}
