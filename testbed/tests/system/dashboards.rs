//! Each query of the dashboard, and each rule, says something in a real Prometheus that scrapes a real forwarder.

use crate::common::{Way, cluster, logins};
use serde_json::Value;
use testbed::forwarder::{self, Running};
use testbed::guardian::wait_until;
use testbed::prometheus::Prometheus;
use testbed::proxy::{Fault, Proxy};
use testbed::root;

/// The queries of the dashboard, with the title of their panel, as Grafana sends them.
fn queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join("deploy/grafana/forwarder.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap().to_owned();
            let query = target["expr"].as_str().unwrap();
            queries.push((title, query.replace("$job", ".*").replace("$__rate_interval", "15s")));
        }
    }
    queries
}

#[tokio::test]
async fn each_query_has_an_answer_under_load() {
    let way = Way::new("dashboards").await;
    let proxy = Proxy::before(cluster().await.port()).await.unwrap();
    let url = format!("postgresql://pgmask_forwarder@127.0.0.1:{}/{}", proxy.port(), way.name);
    let command = forwarder::command(crate::common::localstack().await, way.name, &url).unwrap();
    let running = Running::start(command).unwrap();
    let prometheus = Prometheus::start("logins-forwarder", &[running.metrics_port()]).await.unwrap();

    // A load with something of everything: an outage in its midst, and messages that are no logins.
    let load = async {
        for round in 0.. {
            proxy.set(if round % 8 == 1 { Fault::Refuse } else { Fault::None });
            way.queue.send(&logins(round * 100..round * 100 + 100)).await.unwrap();
            way.queue.send(&["no login".to_owned()]).await.unwrap();
        }
    };
    let queries = queries();
    assert!(queries.len() > 15);
    let looks = async {
        for (title, query) in &queries {
            let answers = || async {
                let values = prometheus.query(query).await.unwrap_or_else(|error| panic!("{title}: {error}"));
                !values.is_empty() && values.iter().all(|value| value.is_finite())
            };
            wait_until(&format!("{title}: {query}"), answers).await.unwrap();
        }
        let rates = prometheus.query("rate(pg_mask_forwarder_inserted_total[15s]) > 0").await.unwrap();
        assert_eq!(rates.len(), 1);
    };
    tokio::select! {
        () = looks => {}
        () = load => {}
    }

    // The rules are evaluated without an error, and nothing fires.
    let evaluated = || async {
        let groups = prometheus.api("/api/v1/rules").await.unwrap();
        let rules = groups["groups"][0]["rules"].as_array().unwrap().clone();
        assert!(rules.iter().all(|rule| rule["health"] != "err" && rule["state"] != "firing"), "{rules:?}");
        rules.len() > 10 && rules.iter().all(|rule| rule["health"] == "ok")
    };
    wait_until("each rule is evaluated", evaluated).await.unwrap();
}

#[test]
fn the_dashboard_shows_each_metric() {
    let page = std::fs::read_to_string(root().join("docs/forwarder.md")).unwrap();
    let queries: String = queries().into_iter().map(|(_, query)| query + "\n").collect();
    let rows =
        page.lines().filter_map(|line| line.strip_prefix("| `pg_mask_forwarder_")?.split(['`', '{']).next());
    let missing: Vec<&str> =
        rows.filter(|name| !queries.contains(&format!("pg_mask_forwarder_{name}"))).collect();
    assert!(missing.is_empty(), "the dashboard shows nothing of {missing:?}");
}
