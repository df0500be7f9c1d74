//! What the forwarder is told: flags, each with an environment variable. Knows no other part of it.

use clap::builder::{BoolishValueParser, PossibleValuesParser, Resettable, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use safe_output::usage::{self, Expected, any_time, number, size, time};
use sqs_query::Choice;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

/// Carries messages from an SQS queue to PostgreSQL, where pg_mask masks and stores them.
///
/// AWS settings come from the standard AWS environment and profiles: `AWS_ENDPOINT_URL`, `AWS_REGION`,
/// `AWS_PROFILE` and so on. Exit codes: 0 done, 2 wrong usage, 69 the queue or the database could not
/// be reached, 70 a defect, 75 a drain ended before the queue was empty, 78 the set-up is wrong, 128 + n a
/// second signal, of the number n, ended it at once.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) queue: QueueName,

    #[command(flatten)]
    pub(crate) database: DatabaseUrl,

    /// End when the queue is empty: no message visible, delayed or in flight, seen twice.
    #[arg(long, env = "FORWARDER_DRAIN", value_parser = BoolishValueParser::new())]
    pub(crate) drain: bool,

    /// How long a drain may take. It ends with 75 then, having settled what it holds.
    #[arg(long, env = "FORWARDER_DRAIN_TIMEOUT", value_name = "TIME", value_parser = any_time())]
    pub(crate) drain_timeout: Option<Duration>,

    /// How many receives are under way at once, 1 to 1000; auto: one while the queue is empty, up to
    /// 64 while it is not and more of them help.
    #[arg(long, env = "FORWARDER_RECEIVERS", default_value = "auto", value_name = "N")]
    pub(crate) receivers: Receivers,

    /// How many connections write to the database.
    #[arg(long, env = "FORWARDER_WRITERS", default_value = "2", value_name = "N", value_parser = number(1..=100))]
    pub(crate) writers: usize,

    /// The most messages in a batch: one statement, one transaction. 100,000 at most, as pg_mask takes them.
    #[arg(long, env = "FORWARDER_BATCH_MESSAGES", default_value = "1000", value_name = "N", value_parser = number(1..=MOST_BATCH_MESSAGES))]
    pub(crate) batch_messages: usize,

    /// The most bytes of ids and bodies in a batch; what one receive gave stays together. 64 MiB at most, as
    /// pg_mask takes them.
    #[arg(long, env = "FORWARDER_BATCH_BYTES", default_value = "8 MiB", value_name = "SIZE", value_parser = size(1..=MOST_BATCH_BYTES, "1 B to 64 MiB"))]
    pub(crate) batch_bytes: usize,

    /// How long a batch waits for more messages.
    #[arg(long, env = "FORWARDER_BATCH_LINGER", default_value = "50ms", value_name = "TIME", value_parser = time(Duration::ZERO..=HOUR, "an hour at most"))]
    pub(crate) batch_linger: Duration,

    /// The most messages received and not yet deleted.
    #[arg(long, env = "FORWARDER_MAX_IN_FLIGHT", default_value = "10000", value_name = "N")]
    pub(crate) max_in_flight: NonZeroUsize,

    /// The most bytes of messages received and not yet deleted.
    #[arg(long, env = "FORWARDER_MAX_IN_FLIGHT_BYTES", default_value = "64 MiB", value_name = "SIZE", value_parser = size(1..=usize::MAX, "1 B or more"))]
    pub(crate) max_in_flight_bytes: usize,

    /// For how long a received message is hidden from other receivers, 1 s to 12 hours; renewed at
    /// half time while it is held.
    #[arg(long, env = "FORWARDER_VISIBILITY_TIMEOUT", default_value = "60s", value_name = "TIME", value_parser = visibility_timeout)]
    pub(crate) visibility_timeout: Duration,

    /// The protocol for SQS: json is AWS JSON, query the Query protocol, for servers that do not speak
    /// AWS JSON; auto finds out.
    #[arg(long, env = "FORWARDER_SQS_PROTOCOL", default_value = "auto", value_name = "PROTOCOL", value_parser = PossibleValuesParser::new(Choice::NAMES).try_map(|name| name.parse::<Choice>()))]
    pub(crate) sqs_protocol: Choice,

    /// How long the database may take for a batch before the connection counts as lost.
    #[arg(long, env = "FORWARDER_STATEMENT_TIMEOUT", default_value = "60s", value_name = "TIME", value_parser = time(Duration::from_nanos(1)..=Duration::MAX, "more than 0"))]
    pub(crate) statement_timeout: Duration,

    /// Where to serve /metrics, /healthz and /readyz, as in 127.0.0.1:9090. Off unless given.
    #[arg(long, env = "FORWARDER_METRICS_LISTEN", value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<SocketAddr>,

    /// How log lines are written to stderr: text on a terminal, else json.
    #[arg(long, env = "FORWARDER_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<Format>,

    /// The least important log lines that are written.
    #[arg(long, env = "FORWARDER_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub(crate) log_level: tracing::Level,

    /// How long held batches may take to be written and deleted after SIGTERM or SIGINT.
    #[arg(long, env = "FORWARDER_SHUTDOWN_GRACE", default_value = "25s", value_name = "TIME", value_parser = any_time())]
    pub(crate) shutdown_grace: Duration,
}

/// What to do other than to carry messages.
#[derive(Subcommand)]
pub(crate) enum Command {
    Check(Check),
    Health(Health),
    /// Print completions for a shell, to be saved where it looks for them.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man,
}

/// Check everything that is needed, a line each, with a hint for what fails. Takes no message and leaves
/// nothing behind. Give it what the forwarder is given.
///
/// Lines start with ✓ (passed), ! (works, but look at it), ✗ (failed) or - (not checked, because of
/// something that failed before). Exit codes: 0 nothing failed, 69 the queue or the database could not be
/// reached, 78 the set-up is wrong.
#[derive(Args, Clone, Copy)]
pub(crate) struct Check {
    /// How the findings are printed. json is one object: `{"exit_code": 0, "checks": [{"check": "queue",
    /// "result": "passed", "text": "…"}, …]}`, each result passed, warning, failed or skipped.
    #[arg(long, env = "FORWARDER_OUTPUT", default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// Ask a running forwarder whether it is ready, for the health checks of containers. Exit codes: 0 it is, 69
/// it is not, or none answers.
#[derive(Args, Clone, Copy)]
pub(crate) struct Health {
    /// Ask whether it is alive, which it is during outages, too.
    #[arg(long, env = "FORWARDER_ALIVE", value_parser = BoolishValueParser::new())]
    pub(crate) alive: bool,
}

/// Which queue.
#[derive(Args)]
pub(crate) struct QueueName {
    /// The queue's URL.
    #[arg(long, env = "QUEUE_URL", value_name = "URL")]
    pub(crate) queue_url: Option<String>,

    /// The queue's name, in the account and region of the AWS settings.
    #[arg(long, env = "QUEUE_NAME", value_name = "NAME")]
    pub(crate) queue_name: Option<String>,
}

/// Which database. For what a URL leaves open, or without one, libpq's variables count: `PGHOST`,
/// `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE`, `PGSSLMODE`, `PGSSLROOTCERT` and so on.
#[derive(Args)]
pub(crate) struct DatabaseUrl {
    /// `postgresql://user@host:port/database?sslmode=verify-full`; what it leaves open, PGHOST, PGUSER,
    /// PGSSLMODE and so on say. A password is better kept in PGPASSWORD, ~/.pgpass, or a file that
    /// PGPASSWORD_FILE names.
    #[arg(long, env = "DATABASE_URL", value_name = "URL")]
    pub(crate) database_url: Option<String>,

    /// Whether the URL is an argument, which the process list shows.
    #[arg(skip)]
    pub(crate) is_argument: bool,
}

/// How many receives are under way at once.
#[derive(Clone, Copy)]
pub(crate) enum Receivers {
    /// As many as bring more.
    Auto,
    /// So many.
    Fixed(usize),
}

impl FromStr for Receivers {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(number @ 1..=1000) => Ok(Self::Fixed(number)),
            _ => Err(Expected("1 to 1000, or auto".to_owned())),
        }
    }
}

/// How log lines and findings look.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// JSON objects.
    Json,
}

impl Config {
    /// All commands and flags.
    pub(crate) fn described() -> clap::Command {
        // A flag may stand before or after a subcommand, if that uses it. A variable that is set to nothing
        // is not set.
        let mut command = Self::command().mut_args(|flag| {
            let value = flag.get_env().and_then(std::env::var_os);
            let is_empty = value.is_some_and(|value| value.is_empty());
            let flag = if is_empty { flag.env(Resettable::Reset) } else { flag };
            let of_carrying = ["drain", "drain_timeout"].contains(&flag.get_id().as_str());
            flag.global(!of_carrying).hide_env_values(true)
        });
        // The other commands than check use few of the flags for all.
        command.build();
        let hide = |command: clap::Command| {
            command.mut_args(|flag| {
                let used = ["metrics_listen", "alive", "shell", "help"].contains(&flag.get_id().as_str());
                flag.hide(!used)
            })
        };
        ["health", "completions", "man"]
            .into_iter()
            .fold(command, |command, name| command.mut_subcommand(name, hide))
    }

    /// Reads flags and environment. An error is a usage error, or what `--help` and `--version` print.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let mut command = Self::described();
        let given = command.try_get_matches_from_mut(std::env::args_os());
        let given = given.map_err(|error| usage::without_values(error, &mut command))?;
        let mut config = Self::from_arg_matches(&given).map_err(|error| error.format(&mut command))?;
        let flag = |name| given.value_source(name) == Some(ValueSource::CommandLine);
        let queue = &mut config.queue;
        // A flag counts more than a variable.
        let [url, name] = [&mut queue.queue_url, &mut queue.queue_name];
        *url = url.take().filter(|url| !url.is_empty() && (flag("queue_url") || !flag("queue_name")));
        *name = name.take().filter(|name| !name.is_empty() && (flag("queue_name") || !flag("queue_url")));
        let wrong = match (&queue.queue_url, &queue.queue_name) {
            (None, None) => Some("no queue is given: give --queue-url or --queue-name"),
            (Some(_), Some(_)) => Some("--queue-url and --queue-name are both given: give one of them"),
            (Some(url), None) if url.contains('@') => Some(
                "--queue-url (QUEUE_URL) has an @, and so a user or a password in it. Give credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in a profile",
            ),
            _ => None,
        };
        let needs_queue = matches!(config.command, None | Some(Command::Check(_)));
        if let Some(text) = wrong.filter(|_| needs_queue) {
            return Err(command.error(clap::error::ErrorKind::MissingRequiredArgument, text));
        }
        config.database.is_argument = flag("database_url");
        Ok(config)
    }
}

/// What pg_mask takes in one batch (`pg_mask/src/memory.rs`).
const MOST_BATCH_MESSAGES: usize = 100_000;
const MOST_BATCH_BYTES: usize = 64 << 20;
const HOUR: Duration = Duration::from_secs(3600);

/// SQS allows 0 to 43,200 seconds, and whole ones. With 0 a message would come again at once.
fn visibility_timeout(text: &str) -> Result<Duration, Expected> {
    let time = time(Duration::from_secs(1)..=12 * HOUR, "1s to 12h, as SQS has it")(text)?;
    Ok(Duration::from_secs(time.as_secs_f64().ceil() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `--drain`, `--output` and `--alive` had none.
    #[test]
    fn every_flag_has_a_variable() {
        let described = Config::command();
        let flags = |command: &clap::Command| -> Vec<_> {
            command.get_arguments().filter(|flag| !flag.is_positional()).cloned().collect()
        };
        let all = described.get_subcommands().chain([&described]).flat_map(flags);
        let without: Vec<_> = all.filter(|flag| flag.get_env().is_none()).collect();
        assert!(without.is_empty(), "{without:?}");
    }
}
