//! The forwarder's binary, run and listened to.

use crate::Result;
use crate::emulator::{self, Emulator};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

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

/// Runs a forwarder to its end.
pub async fn run(mut command: Command) -> Result<Ended> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    let output = command.kill_on_drop(true).output().await?;
    Ok(Ended {
        code: output.status.code(),
        summary: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        printed: String::from_utf8_lossy(&output.stdout).into_owned(),
        log: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
