//! The forwarder carries messages from an SQS queue to PostgreSQL, where pg_mask masks and stores them. It
//! never looks into a message.
//!
//! [`pipeline`] is the way of a message, file by file: a [`message`] comes from the [`queue`], is
//! [`in_flight`] until it is settled, and goes to the [`database`]. [`telemetry`] is what people see of it,
//! [`config`] what they may set, and [`check`] tries whether it works. [`error`] has the kinds of errors.
#![forbid(unsafe_code)]

mod check;
mod config;
mod database;
mod error;
mod in_flight;
mod message;
mod pipeline;
mod queue;
mod telemetry;

use config::{Command, Config};
use error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use telemetry::progress::Progress;
use telemetry::tally::Tally;

/// The SDK allocates much, and frees on other threads.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config = match Config::read() {
        Ok(config) => config,
        // Also what --help and --version print, whose code is 0.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let progress = Progress::new(config.drain);
    telemetry::log::start(&config, &progress);
    if let Some(Command::Check(check)) = config.command {
        return check::run(&config, check).await;
    }
    let tally = Arc::new(Tally::new());
    let ended = run(&config, &tally, &progress).await;
    progress.finish();
    // If nothing reads it, or the disk is full, the messages are carried nevertheless.
    let _ = writeln!(std::io::stdout(), "{}", tally.summary());
    let Err(error) = ended else { return ExitCode::SUCCESS };
    tracing::error!("{error}");
    ExitCode::from(error.kind.exit_code())
}

/// Carries messages; a second signal ends that at once.
async fn run(config: &Config, tally: &Arc<Tally>, progress: &Progress) -> Result<(), Error> {
    let stop = pipeline::shutdown::on_signal(config.shutdown_grace)?;
    let everything = stop.everything.clone();
    let carried = pipeline::run(config, tally, progress, stop);
    everything.run_until_cancelled(carried).await.unwrap_or(Ok(()))
}
