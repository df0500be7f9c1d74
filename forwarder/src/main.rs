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
use std::process::ExitCode;

/// The SDK allocates much, and frees on other threads.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let config = match Config::read() {
        Ok(config) => config,
        // Also what --help and --version print, whose code is 0.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let progress = telemetry::progress::Progress::new(config.drain);
    telemetry::log::start(&config, &progress);
    let ended = runtime().and_then(|runtime| {
        let ended = runtime.block_on(async {
            match config.command {
                Some(Command::Check(check)) => Ok(check::run(&config, check).await),
                None => pipeline::carry(&config, &progress).await.map(|()| 0),
            }
        });
        // A look-up of a name may hang: that is not waited for.
        runtime.shutdown_background();
        ended
    });
    ExitCode::from(ended.unwrap_or_else(|error| {
        tracing::error!("{error}");
        error.kind.exit_code()
    }))
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Runtime::new().map_err(|error| {
        Error::new(error::Kind::SetUp, None, format!("cannot set up the runtime: {error}")).caused_by(error)
    })
}
