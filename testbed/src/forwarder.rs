//! The forwarder's binary, run and listened to.

use crate::emulator::{self, Emulator};
use crate::guardian::free_port;
use crate::{Result, http};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// What a forwarder left when it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its standard output, if that is JSON.
    pub summary: Value,
    /// All of its standard output.
    pub printed: String,
    /// What it logged.
    pub log: String,
}

/// The forwarder that was built beside this program.
pub fn program() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let beside = this.ancestors().skip(1).take(2).map(|folder| folder.join("forwarder"));
    let found = beside.into_iter().find(|program| program.is_file());
    found.ok_or_else(|| "the forwarder is not built; run: cargo build -p forwarder".into())
}

/// A forwarder between a queue and a database, not started yet. Of the environment it sees what is
/// given here alone.
pub fn command(emulator: &Emulator, queue_name: &str, database_url: &str) -> Result<Command> {
    command_at(&emulator.endpoint(), queue_name, database_url)
}

/// The same at any endpoint.
pub fn command_at(endpoint: &str, queue_name: &str, database_url: &str) -> Result<Command> {
    let mut command = Command::new(program()?);
    command
        .env_clear()
        .envs(emulator::environment(endpoint))
        .env("QUEUE_NAME", queue_name)
        .env("DATABASE_URL", database_url);
    Ok(command)
}

/// A forwarder that runs; killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: tokio::process::Child,
    metrics: u16,
}

impl Running {
    /// Starts a forwarder that serves metrics.
    pub fn start(mut command: Command) -> Result<Self> {
        let metrics = free_port()?;
        command.env("FORWARDER_METRICS_LISTEN", format!("127.0.0.1:{metrics}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        Ok(Self { child, metrics })
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if let Some(pid) = self.pid() {
            rustix::process::kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// Its process id, until it was waited for.
    pub fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()))
    }

    /// The port that its metrics are served on.
    pub fn metrics_port(&self) -> u16 {
        self.metrics
    }

    /// The answer to a GET, head and body; nothing if there is none.
    pub async fn get(&self, path: &str) -> String {
        http::get(self.metrics, path).await.unwrap_or_default()
    }

    /// The same with a header.
    pub async fn get_with(&self, path: &str, header: &str) -> String {
        http::get_with(self.metrics, path, header).await.unwrap_or_default()
    }

    /// A metric's value, with its labels if it has any; 0 while there is none.
    pub async fn metric(&self, name: &str) -> u64 {
        let page = self.get("/metrics").await;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or(0.0) as u64
    }

    /// Waits for its end.
    pub async fn ended(self) -> Result<Ended> {
        Ok(Ended::of(&self.child.wait_with_output().await?))
    }
}

/// Runs a forwarder to its end.
pub async fn run(mut command: Command) -> Result<Ended> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    let output = command.kill_on_drop(true).output().await?;
    Ok(Ended::of(&output))
}

impl Ended {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            summary: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
            printed: String::from_utf8_lossy(&output.stdout).into_owned(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
