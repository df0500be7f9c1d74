//! `testbed demo`, `testbed bench`, `testbed soak`: see [`testbed::demo`], [`testbed::bench`], [`testbed::soak`].
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use testbed::bench::instructions::{self, Work};

/// The forwarder's, or the benchmark would not be fair to the SDK alone.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    /// Forwarders at full speed while everything is killed at random, and a sum at the end.
    Soak {
        /// For so long.
        #[arg(long, default_value = "60")]
        minutes: f64,
        /// With LocalStack, which is slower and more like SQS, not with rustack.
        #[arg(long)]
        localstack: bool,
        /// How many forwarders share the queue.
        #[arg(long, default_value = "2")]
        forwarders: usize,
    },
    /// What it does in a second, beside its peers and its limits.
    Bench {
        /// One part alone.
        #[arg(value_parser = ["mask", "ingest", "e2e", "receivers", "start", "remask", "scale", "views", "instructions"])]
        part: Option<String>,
        /// Say what has changed since an earlier run, whose figures are in this file; without one, since the last run.
        /// Fails if something became worse beyond noise.
        #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
        compare: Option<PathBuf>,
    },
    /// What a part of the benchmark counts the instructions of.
    #[command(hide = true)]
    Work {
        /// What to do.
        work: Work,
        /// How often.
        calls: u64,
    },
}

fn main() -> testbed::Result<()> {
    match Args::parse().command {
        // Without a runtime, whose threads take another number of instructions each time.
        Command::Work { work, calls } => instructions::work(work, calls),
        command => tokio::runtime::Runtime::new()?.block_on(run(command)),
    }
}

async fn run(command: Command) -> testbed::Result<()> {
    match command {
        Command::Demo { keep } => testbed::demo::run(keep).await,
        Command::Soak { minutes, localstack, forwarders } => {
            testbed::soak::run(minutes, localstack, forwarders).await
        }
        Command::Bench { part, compare } => testbed::bench::run(part.as_deref(), compare.as_deref()).await,
        Command::Work { work, calls } => instructions::work(work, calls),
    }
}
