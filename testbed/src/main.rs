//! `testbed demo`: see [`testbed::demo`].
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};

/// Real servers for the demo, the tests and the benchmarks.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Three hundred logins from a queue to tables, and what an analyst sees there.
    Demo {
        /// Keep the servers up until Ctrl-C.
        #[arg(long)]
        keep: bool,
    },
}

#[tokio::main]
async fn main() -> testbed::Result<()> {
    match Args::parse().command {
        Command::Demo { keep } => testbed::demo::run(keep).await,
    }
}
