//! SQL blocks: each is a script for a psql of its own.

use super::Ran;
use std::process::Stdio;
use testbed::cluster::Cluster;
use tokio::io::AsyncWriteExt;

/// Runs a script as a role, or the superuser. What is told of other roles may have bare names.
pub(crate) async fn run(cluster: &Cluster, database: &str, role: Option<&str>, script: &str) -> Ran {
    let mut psql = cluster.psql(database);
    psql.arg("--quiet").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(role) = role.filter(|role| *role != "postgres") {
        psql.env("PGOPTIONS", format!("-c role={role} -c search_path=public"));
    }
    let mut running = tokio::process::Command::from(psql).kill_on_drop(true).spawn().unwrap();
    let mut input = running.stdin.take().unwrap();
    input.write_all(format!("\\pset footer off\n{script}\n").as_bytes()).await.unwrap();
    drop(input);
    let ended = running.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    // As on a terminal, but for the place in the script.
    let errors: Vec<String> = text(ended.stderr).lines().map(without_place).collect();
    Ran { printed: text(ended.stdout), errors: errors.join("\n"), succeeded: ended.status.success() }
}

fn without_place(line: &str) -> String {
    let place = line.strip_prefix("psql:<stdin>:").and_then(|rest| rest.split_once(": "));
    place.map_or(line, |(_, said)| said).to_owned()
}
