//! The forwarder carries messages from an SQS queue to PostgreSQL, where pg_mask masks and stores
//! them. It never looks into a message.
//!
//! A message meets these files in order: [`receive`] takes it off the queue, [`batch`] puts it among
//! others, [`mod@write`] hands them to the database, [`delete`] deletes it once the commit is durable.
//! One that can't be written in time is given back by [`release`]. Meanwhile [`held`] knows of it, [`renew`] keeps it hidden from others, and it has its place in
//! [`room`]. [`pipeline`] ties these together, [`shared`] is what they have in common; [`drain`] knows
//! when a queue is empty and [`shutdown`] when to stop.
#![forbid(unsafe_code)]

mod batch;
mod check;
mod config;
mod database;
mod delete;
mod drain;
mod error;
mod gate;
mod held;
mod log;
mod message;
mod metrics;
mod pipeline;
mod progress;
mod protocol;
mod queue;
mod receive;
mod release;
mod renew;
mod report;
mod retry;
mod room;
mod shared;
mod shutdown;
mod summary;
mod write;

use config::{Command, Config};
use progress::Progress;
use std::process::ExitCode;
use std::sync::Arc;
use summary::Tally;

fn main() -> ExitCode {
    let config = Config::read();
    let tally = Arc::new(summary::Tally::new());
    let progress = progress::Progress::new(config.drain);
    log::start(&config, &progress);
    if let Some(Command::Check(check)) = config.command {
        return check::run(&config, check);
    }
    let ended = run(&config, &tally, &progress);
    progress.finish();
    println!("{}", tally.summary());
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Builds what everything else runs on, and runs it.
#[tokio::main]
async fn run(config: &Config, tally: &Arc<Tally>, progress: &Progress) -> Result<(), error::Error> {
    let stop = shutdown::on_signal(config.shutdown_grace)?;
    let everything = stop.everything.clone();
    let carried = pipeline::run(config, tally, progress, stop);
    everything.run_until_cancelled(carried).await.unwrap_or(Ok(()))
}
