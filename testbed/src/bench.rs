//! `make bench`: everything side by side in one run on one machine, ratios first, raw figures kept.
//!
//! - `mask`: what masking costs a row, beside what people do instead
//! - `ingest`: rows a second of one backend, beside plain SQL and the limit
//! - `e2e`: from a full queue to durable rows and an empty queue, beside predecessors and the ceiling
//! - `receivers`: `--receivers auto` beside each fixed number
//! - `start`: from the start of a forwarder to the first row, and from the last delete to its end; and waiting
//! - `remask`: lifting stored tokens, and what it costs what runs beside it
//! - `scale`: what changes when there is more of everything
//! - `views`: what analysts ask of ten million logins, beside the plainest way to ask it
//! - `instructions`: how many instructions masking, parsing and ingestion take, which no neighbour changes
//! - `report`: tables for people, JSON for machines; `spread`: how far rounds are apart; `compare`: what has changed

mod compare;
mod e2e;
mod ingest;
pub mod instructions;
mod load;
mod mask;
mod process;
mod receivers;
mod remask;
mod report;
mod run;
mod scale;
mod sdk_alone;
mod spread;
mod start;
mod views;

use crate::Result;
use report::Report;
use serde_json::Value;
use std::path::Path;

/// What a DBA would set for a machine like this, and nothing else.
const SETTINGS: &[&str] =
    &["shared_buffers = 1GB", "max_wal_size = 8GB", "fsync = on", "checkpoint_timeout = 30min"];

/// Runs one part, or all; keeps the figures in `target/testbed/bench.json`. With `compare`, says what has changed
/// beyond noise since the run that this file holds, and fails if something became worse; an empty path is that of the
/// last run.
pub async fn run(part: Option<&str>, compare: Option<&Path>) -> Result<()> {
    if cfg!(debug_assertions) {
        return Err("benchmarks need a release build: make bench".into());
    }
    let last = read(&Report::path()).unwrap_or_default();
    let before = match compare {
        Some(path) if !path.as_os_str().is_empty() => read(path)?,
        _ => last.clone(),
    };
    let mut report = Report::default();
    for name in ["mask", "ingest", "e2e", "receivers", "start", "remask", "scale", "views", "instructions"] {
        if part.is_some_and(|part| part != name) {
            continue;
        }
        eprintln!("== {name}");
        match name {
            "mask" => mask::run(&mut report).await?,
            "ingest" => ingest::run(&mut report).await?,
            "e2e" => e2e::run(&mut report).await?,
            "receivers" => receivers::run(&mut report).await?,
            "start" => start::run(&mut report).await?,
            "remask" => remask::run(&mut report).await?,
            "scale" => scale::run(&mut report).await?,
            "views" => views::run(&mut report).await?,
            _ => instructions::run(&mut report).await?,
        }
        // What was measured stays, whatever fails later.
        report.write(&last)?;
    }
    println!("\n{}\nAll figures: {}", report.markdown(), Report::path().display());
    if compare.is_none() {
        return Ok(());
    }
    let (changes, compared) = compare::changes(&before, &report);
    println!("\nOf {compared} figures and ratios that the other run has, {} have changed:", changes.len());
    changes.iter().for_each(|change| println!("  {change}"));
    match changes.iter().filter(|change| change.is_worse).count() {
        0 => Ok(()),
        worse => Err(format!("{worse} figures are worse than before, beyond noise").into()),
    }
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}
