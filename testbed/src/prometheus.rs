//! Prometheus, which scrapes forwarders and evaluates the alerts of `deploy/prometheus`.

use crate::guardian::{Guardian, free_port, wait_until};
use crate::{Result, http, root};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use url::form_urlencoded::byte_serialize;

/// A Prometheus, gone with its value.
#[derive(Debug)]
pub struct Prometheus {
    guardian: Guardian,
    port: u16,
}

impl Prometheus {
    /// Starts it. It scrapes `job` at these ports of the loopback every second.
    pub async fn start(job: &str, targets: &[u16]) -> Result<Self> {
        let folder = Guardian::folder("prometheus")?;
        let port = free_port()?;
        let targets: Vec<String> = targets.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
        let configuration = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
             scrape_configs: [{{job_name: {job}, static_configs: [{{targets: [{}]}}]}}]\n",
            root().join("deploy/prometheus/alerts.yaml").display(),
            targets.join(", "),
        );
        std::fs::write(folder.join("prometheus.yaml"), configuration)?;
        let command = [
            "prometheus".to_owned(),
            format!("--config.file={}", folder.join("prometheus.yaml").display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let guardian = Guardian::new(&folder, "TERM", &command)?;
        let mut prometheus = Self { guardian, port };
        prometheus.guardian.start()?;
        let ready = || async {
            let answer = http::get(port, "/-/ready").await.unwrap_or_default();
            answer.starts_with("HTTP/1.1 200") || !prometheus.guardian.is_running()
        };
        wait_until("Prometheus answers", ready).await?;
        if !prometheus.guardian.is_running() {
            let log = prometheus.guardian.log();
            return Err(format!("Prometheus does not run; is it installed (testbed/setup.sh)?\n{log}").into());
        }
        Ok(prometheus)
    }

    /// Where its pages are.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data that its API answers with.
    pub async fn api(&self, path: &str) -> Result<Value> {
        // An HTTP/1.0 request, so that the answer comes whole.
        let answer = http::get_1_0(self.port, path).await?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let mut answer: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {answer}"))?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].take()),
            _ => Err(format!("{path}: {}", answer["error"]).into()),
        }
    }

    /// The values of a query now, one for each series.
    pub async fn query(&self, query: &str) -> Result<Vec<f64>> {
        let query: String = byte_serialize(query.as_bytes()).collect();
        let data = self.api(&format!("/api/v1/query?query={query}")).await?;
        let series = data["result"].as_array().ok_or("no result")?;
        series.iter().map(|series| Ok(series["value"][1].as_str().ok_or("no value")?.parse()?)).collect()
    }
}

/// What `promtool check metrics` finds fault with in a page of metrics; empty if nothing.
pub fn faults(metrics: &str) -> Result<String> {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool =
        promtool.spawn().map_err(|error| format!("can't run promtool; run testbed/setup.sh: {error}"))?;
    promtool.stdin.take().ok_or("no pipe to promtool")?.write_all(metrics.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    match output.status.success() || !said.is_empty() {
        true => Ok(said),
        false => Err(format!("promtool ended with {}", output.status).into()),
    }
}
