//! The protocol in which SQS is spoken to: AWS JSON, or the older Query protocol for servers that know
//! no other, such as LocalStack before 3.0.
//!
//! The SDK speaks JSON. For Query, [`request`] rewrites what it sends before that is signed, and
//! [`connector`] what comes back before the SDK reads it ([`xml`], [`answer`]), so that signing, retries
//! and time-outs stay the SDK's. [`spoken`] knows which protocol it is.

mod answer;
mod connector;
mod request;
mod spoken;
#[cfg(test)]
mod tests;
mod xml;

use aws_config::SdkConfig;
use aws_sdk_sqs::config::Builder;
use aws_sdk_sqs::config::retry::{RetryConfig, RetryPartition};
use clap::ValueEnum;
pub(crate) use spoken::Spoken;
use std::sync::Arc;

/// The error code of a server that doesn't speak the chosen protocol.
pub(crate) const WRONG_CHOICE: &str = "WrongProtocol";

/// What to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// AWS JSON, or the Query protocol with a server that speaks no JSON.
    Auto,
    /// AWS JSON.
    Json,
    /// The Query protocol.
    Query,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Json,
    Query,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Json => "AWS JSON",
            Self::Query => "SQS's Query protocol",
        })
    }
}

/// The settings of a client that speaks what `spoken` says. Clients of one server share that.
pub(crate) fn speaking(settings: &SdkConfig, spoken: &Arc<Spoken>) -> Builder {
    let retries = settings.retry_config().cloned().unwrap_or_else(RetryConfig::standard);
    // Finding out takes an attempt of its own.
    let attempts = retries.max_attempts() + u32::from(spoken.finds_out());
    // The SDK's allowance of retries is otherwise the whole process's, and an outage before this client
    // was made may have used it up.
    let allowance = RetryPartition::custom("forwarder").build();
    let mut speaking = Builder::from(settings)
        .retry_partition(allowance)
        .retry_config(retries.with_max_attempts(attempts))
        .retry_classifier(connector::AskAgain)
        .interceptor(request::Rewrite(spoken.clone()));
    let inner = settings.http_client();
    speaking.set_http_client(inner.map(|inner| connector::wrap(inner, spoken.clone())));
    speaking
}
