//! What the forwarder is told: flags, each with an environment variable.

use crate::check::Check;
use crate::database::DatabaseUrl;
use bytesize::ByteSize;
use clap::builder::{PossibleValuesParser, Resettable, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use sqs_query::Choice;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

/// Carries messages from an SQS queue to PostgreSQL, where pg_mask masks and stores them.
///
/// AWS settings come from the standard AWS environment and profiles: `AWS_ENDPOINT_URL`, `AWS_REGION`,
/// `AWS_PROFILE` and so on. Exit codes: 0 done, 2 wrong usage, 69 the queue or the database could not
/// be reached, 78 the set-up is wrong.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 100)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) queue: QueueName,

    #[command(flatten)]
    pub(crate) database: DatabaseUrl,

    /// End when the queue is empty: nothing visible, delayed or in flight, seen twice.
    #[arg(long)]
    pub(crate) drain: bool,

    /// How many receives are under way at once, 1 to 1000; auto: one while the queue is empty, up to
    /// 64 while it is not and more of them help.
    #[arg(long, env = "FORWARDER_RECEIVERS", default_value = "auto", value_name = "N")]
    pub(crate) receivers: Receivers,

    /// How many connections write to the database.
    #[arg(long, env = "FORWARDER_WRITERS", default_value = "2", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) writers: u16,

    /// The most messages in a batch: one statement, one transaction.
    #[arg(long, env = "FORWARDER_BATCH_MESSAGES", default_value = "1000", value_name = "N")]
    pub(crate) batch_messages: NonZeroUsize,

    /// The most bytes of bodies in a batch; what one receive gave stays together.
    #[arg(long, env = "FORWARDER_BATCH_BYTES", default_value = "8 MiB", value_name = "SIZE")]
    pub(crate) batch_bytes: ByteSize,

    /// How long a batch waits for more messages.
    #[arg(long, env = "FORWARDER_BATCH_LINGER", default_value = "50ms", value_name = "TIME", value_parser = batch_linger)]
    pub(crate) batch_linger: Duration,

    /// The most messages received and not yet deleted.
    #[arg(long, env = "FORWARDER_MAX_IN_FLIGHT", default_value = "10000", value_name = "N")]
    pub(crate) max_in_flight: NonZeroUsize,

    /// The most bytes of bodies received and not yet deleted.
    #[arg(long, env = "FORWARDER_MAX_IN_FLIGHT_BYTES", default_value = "64 MiB", value_name = "SIZE")]
    pub(crate) max_in_flight_bytes: ByteSize,

    /// For how long a received message is hidden from other receivers, 1 s to 12 hours; renewed at
    /// half time while it is held.
    #[arg(long, env = "FORWARDER_VISIBILITY_TIMEOUT", default_value = "60s", value_name = "TIME", value_parser = visibility_timeout)]
    pub(crate) visibility_timeout: Duration,

    /// The protocol for SQS: json is AWS JSON, query the Query protocol, for servers that do not speak
    /// AWS JSON; auto finds out.
    #[arg(long, env = "FORWARDER_SQS_PROTOCOL", default_value = "auto", value_name = "PROTOCOL", value_parser = PossibleValuesParser::new(Choice::NAMES).try_map(|name| name.parse::<Choice>()))]
    pub(crate) sqs_protocol: Choice,

    /// How long the database may take for a batch before the connection counts as lost.
    #[arg(long, env = "FORWARDER_STATEMENT_TIMEOUT", default_value = "60s", value_name = "TIME", value_parser = statement_timeout)]
    pub(crate) statement_timeout: Duration,

    /// Where to serve /metrics, /healthz and /readyz, as in 127.0.0.1:9090. Off unless given.
    #[arg(long, env = "FORWARDER_METRICS_LISTEN", value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<SocketAddr>,

    /// How log lines are written to stderr: text on a terminal, else json.
    #[arg(long, env = "FORWARDER_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,

    /// The least important log lines that are written.
    #[arg(long, env = "FORWARDER_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub(crate) log_level: tracing::Level,

    /// How long held batches may take to be written and deleted after SIGTERM or SIGINT.
    #[arg(long, env = "FORWARDER_SHUTDOWN_GRACE", default_value = "25s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) shutdown_grace: Duration,
}

/// What to do other than to carry messages.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Check(Check),
}

/// Which queue.
#[derive(Args, Debug)]
pub(crate) struct QueueName {
    /// The queue's URL.
    #[arg(long, env = "QUEUE_URL", value_name = "URL")]
    pub(crate) queue_url: Option<String>,

    /// The queue's name, in the account and region of the AWS settings.
    #[arg(long, env = "QUEUE_NAME", value_name = "NAME")]
    pub(crate) queue_name: Option<String>,
}

/// How many receives are under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receivers {
    /// As many as the queue keeps busy.
    Auto,
    /// Just so many.
    Fixed(usize),
}

impl FromStr for Receivers {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(number @ 1..=1000) => Ok(Self::Fixed(number)),
            _ => Err("1 to 1000, or auto"),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Config {
    /// Reads flags and environment; what is wrong there ends the process with exit code 2.
    pub(crate) fn read() -> Self {
        // Every flag may stand before or after a subcommand. A variable that is set to nothing is not set.
        let mut command = Self::command().mut_args(|flag| {
            let value = flag.get_env().and_then(std::env::var_os);
            let is_empty = value.is_some_and(|value| value.is_empty());
            let flag = if is_empty { flag.env(Resettable::Reset) } else { flag };
            flag.global(true)
        });
        let given = command.get_matches_mut();
        let mut config =
            Self::from_arg_matches(&given).unwrap_or_else(|error| error.format(&mut command).exit());
        let flag = |name| given.value_source(name) == Some(ValueSource::CommandLine);
        let queue = &mut config.queue;
        // A flag counts more than a variable.
        let [url, name] = [&mut queue.queue_url, &mut queue.queue_name];
        *url = url.take().filter(|url| !url.is_empty() && (flag("queue_url") || !flag("queue_name")));
        *name = name.take().filter(|name| !name.is_empty() && (flag("queue_name") || !flag("queue_url")));
        let wrong = match (&queue.queue_url, &queue.queue_name) {
            (None, None) => Some("which queue? Give --queue-url or --queue-name"),
            (Some(_), Some(_)) => Some("--queue-url and --queue-name are two answers to one question"),
            _ => None,
        };
        if let Some(text) = wrong {
            command.error(clap::error::ErrorKind::MissingRequiredArgument, text).exit();
        }
        config.database.shown = flag("database_url");
        config
    }
}

/// Messages are hidden from others meanwhile.
fn batch_linger(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time > Duration::from_secs(3600) {
        return Err("an hour at most".to_owned());
    }
    Ok(time)
}

/// No time at all would make every batch an outage.
fn statement_timeout(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() {
        return Err("more than 0".to_owned());
    }
    Ok(time)
}

/// SQS: "0 to 43,200 seconds", that is 12 hours. A message that is not hidden at all comes again at once.
fn visibility_timeout(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < Duration::from_secs(1) {
        return Err("a second at least".to_owned());
    }
    if time > Duration::from_secs(43_200) {
        return Err("SQS hides a message for 12 hours at most".to_owned());
    }
    Ok(time)
}
