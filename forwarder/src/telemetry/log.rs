//! Log lines, on stderr, never with a value from a message.

use super::progress::Progress;
use crate::config::{Config, LogFormat};
use std::io::IsTerminal;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Starts logging. At lower levels libraries log whole requests and answers, so of theirs only warnings are
/// written, whatever level is asked for.
pub(crate) fn start(config: &Config, progress: &Progress) {
    let terminal = std::io::stderr().is_terminal();
    let format = config.log_format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let levels = Targets::new()
        .with_default(LevelFilter::from_level(config.log_level).min(LevelFilter::from_level(Level::WARN)))
        .with_target("forwarder", config.log_level)
        .with_target("pg_settings", config.log_level)
        .with_target("sqs_query", config.log_level);
    let writer = progress.writer();
    let layer = match format {
        LogFormat::Text => fmt::layer().with_target(false).with_ansi(terminal).with_writer(writer).boxed(),
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_target(false).with_writer(writer).boxed()
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(levels)).init();
}
