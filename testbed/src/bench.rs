//! `make bench`: everything side by side in one run on one machine, ratios first, raw figures kept.
//!
//! - `mask`: what masking costs a row, beside what people do instead
//! - `ingest`: rows a second of one backend, beside plain SQL and the limit
//! - `e2e`: from a full queue to durable rows and an empty queue, beside predecessors and the ceiling
//! - `remask`: lifting stored tokens, and what it costs what runs beside it
//! - `scale`: what changes when there is more of everything
//! - `views`: what analysts ask of ten million logins, beside the plainest way to ask it
//! - `report`: tables for people, JSON for machines

mod e2e;
mod ingest;
mod load;
mod mask;
mod remask;
mod report;
mod scale;
mod views;

use crate::Result;
use report::Report;

/// What a DBA would set for a machine like this, and nothing else.
const SETTINGS: &[&str] =
    &["shared_buffers = 1GB", "max_wal_size = 8GB", "fsync = on", "checkpoint_timeout = 30min"];

/// Runs one part, or all; writes `target/testbed/bench.json`, or `bench-<part>.json`.
pub async fn run(part: Option<&str>) -> Result<()> {
    if cfg!(debug_assertions) {
        return Err("benchmarks need a release build: make bench".into());
    }
    let mut report = Report::default();
    for name in ["mask", "ingest", "e2e", "remask", "scale", "views"] {
        if part.is_some_and(|part| part != name) {
            continue;
        }
        eprintln!("== {name}");
        match name {
            "mask" => mask::run(&mut report).await?,
            "ingest" => ingest::run(&mut report).await?,
            "e2e" => e2e::run(&mut report).await?,
            "remask" => remask::run(&mut report).await?,
            "scale" => scale::run(&mut report).await?,
            _ => views::run(&mut report).await?,
        }
        // What was measured stays, whatever fails later.
        report.write(part)?;
    }
    Ok(())
}
