//! The forwarder carries messages from an SQS queue to PostgreSQL, where pg_mask masks and stores
//! them. It never looks into a message.
//!
//! [`pipeline`] tells a message's way, file by file. It takes a [`message`] from the [`queue`] and hands
//! it to the [`database`]; [`telemetry`] is what people see of it. [`config`] is what they may say, and
//! [`check`] tries whether it is right.
#![forbid(unsafe_code)]

mod check;
mod config;
mod database;
mod error;
mod message;
mod pipeline;
mod queue;
mod telemetry;

use config::{Command, Config};
use pipeline::shutdown;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use telemetry::log;
use telemetry::progress::Progress;
use telemetry::summary::Tally;

/// The SDK allocates much, and frees on other threads.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let config = Config::read();
    let tally = Arc::new(Tally::new());
    let progress = Progress::new(config.drain);
    log::start(&config, &progress);
    if let Some(Command::Check(check)) = config.command {
        return check::run(&config, check);
    }
    let ended = run(&config, &tally, &progress);
    progress.finish();
    // Whoever read it may be gone, or its disk full: no reason to look as if nothing was carried.
    let _ = writeln!(std::io::stdout(), "{}", tally.summary());
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
