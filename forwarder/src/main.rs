//! The forwarder carries messages from an SQS queue to PostgreSQL, where pg_mask masks and stores them. It
//! never looks into a message.
//!
//! [`pipeline`] is the way of a message, file by file: a [`message`] comes from the [`queue`] and goes to the
//! [`database`]. [`telemetry`] is what people see of it, [`config`] what they may set, and [`mod@error`] what
//! went wrong; [`check`], [`health`] and [`manual`] are its other commands.
#![forbid(unsafe_code)]

mod check;
mod config;
mod database;
mod error;
mod health;
mod manual;
mod message;
mod pipeline;
mod queue;
mod telemetry;

use config::{Command, Config};
use error::{Error, Kind};
use safe_output::Progress;
use std::process::ExitCode;

/// The SDK allocates much, and frees on other threads than it allocated on: with glibc's allocator they wait for
/// each other.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Prints a usage error, or what --help and --version ask for, and ends with its code.
    let config = Config::read().unwrap_or_else(|error| error.exit());
    let progress = Progress::new(config.drain);
    telemetry::log::start(&config, &progress);
    ExitCode::from(run(&config, &progress).unwrap_or_else(|error| {
        tracing::error!("{error}");
        error.kind.exit_code()
    }))
}

/// Does what was asked for; returns the exit code.
fn run(config: &Config, progress: &Progress) -> Result<u8, Error> {
    let runtime = tokio::runtime::Runtime::new();
    let runtime = runtime.map_err(|error| {
        Error::new(Kind::SetUp, None, format!("cannot set up the runtime: {error}")).caused_by(error)
    })?;
    let ended = runtime.block_on(async {
        match config.command {
            None => pipeline::carry(config, progress).await.map(|()| 0),
            Some(Command::Check(check)) => Ok(check::run(config, check).await),
            Some(Command::Health(asked)) => health::ask(config, asked).map(|()| 0),
            Some(Command::Completions { shell }) => Ok(manual::completions(shell)),
            Some(Command::Man) => Ok(manual::page()),
        }
    });
    runtime.shutdown_background(); // a look-up of a name that hangs is not waited for
    ended
}
