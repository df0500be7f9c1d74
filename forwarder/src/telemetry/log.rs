//! Log lines, on stderr, never with a value from a message, and with control characters escaped: a text of
//! others can't begin a line of its own or move a terminal's cursor.

use super::progress::Progress;
use crate::config::{Config, LogFormat};
use std::borrow::Cow;
use std::io::IsTerminal;
use tracing::Level;
use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
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
    let writer = progress.writer(matches!(format, LogFormat::Json));
    let layer = match format {
        LogFormat::Text => {
            let fields = debug_fn(write_field).delimited(" ");
            fmt::layer().with_target(false).with_ansi(terminal).fmt_fields(fields).with_writer(writer).boxed()
        }
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_target(false).with_writer(writer).boxed()
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(levels)).init();
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn std::fmt::Debug) -> std::fmt::Result {
    let value = format!("{value:?}");
    match field.name() {
        "message" => write!(writer, "{}", escaped(&value)),
        name => write!(writer, "{name}={}", escaped(&value)),
    }
}

/// A text with its control characters as Rust writes them: `\n`, `\u{9b}`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character.is_control() {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}
