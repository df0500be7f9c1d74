//! Log lines, on stderr, never with a value from a message. [`safe_output`] escapes control characters in them.

use crate::config::{Config, Format};
use safe_output::Progress;
use safe_output::log;
use std::io::IsTerminal;
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging. At lower levels libraries log whole requests and answers, so of theirs only warnings are
/// written, whatever level is asked for.
pub(crate) fn start(config: &Config, progress: &Progress) {
    let is_terminal = std::io::stderr().is_terminal();
    let is_text = config.log_format.map_or(is_terminal, |format| matches!(format, Format::Text));
    // https://no-color.org
    let ansi = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let format = if is_text { log::Format::Text { ansi } } else { log::Format::Json };
    let own = ["forwarder", "pg_settings", "sqs_query"].map(|name| (name, config.log_level));
    let of_others = LevelFilter::from_level(config.log_level).min(LevelFilter::from_level(Level::WARN));
    let levels = Targets::new().with_default(of_others).with_targets(own);
    let layer = log::layer(format, progress.writer(), instead_of_the_sdk).with_filter(levels);
    tracing_subscriber::registry().with(layer).init();
}

/// The AWS SDK's warnings quote the settings that it can't use, which may hold a secret, and what programs say that give
/// credentials. The module says which setting it is about.
fn instead_of_the_sdk(module: &str) -> Option<String> {
    const SDK: [&str; 7] = [
        "aws_config",
        "aws_credential_types",
        "aws_runtime",
        "aws_sdk_",
        "aws_sigv4",
        "aws_smithy_",
        "aws_types",
    ];
    SDK.iter().any(|name| module.starts_with(name)).then(|| {
        format!("the AWS SDK ({module}) can't use a setting, or has no success with it; look at AWS_… variables and the AWS profile. Its own text may hold a secret and is not shown")
    })
}
