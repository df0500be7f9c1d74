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

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_sqs::config::{BehaviorVersion, Builder, SharedHttpClient};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
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

/// A client with the standard AWS settings that speaks what is chosen, and what that comes to be.
pub(crate) async fn client(choice: Choice) -> (Client, Arc<Spoken>) {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let settings = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone()).load().await;
    let spoken = Arc::new(Spoken::new(choice));
    let retries = settings.retry_config().cloned().unwrap_or_else(RetryConfig::standard);
    let settings = speaking(Builder::from(&settings), retries, http, spoken.clone());
    (Client::from_conf(settings.build()), spoken)
}

/// Puts the protocol between the SDK and the network.
fn speaking(settings: Builder, retries: RetryConfig, http: SharedHttpClient, spoken: Arc<Spoken>) -> Builder {
    // Finding out takes an attempt of its own.
    let attempts = retries.max_attempts() + u32::from(spoken.finds_out());
    // The SDK's allowance of retries is otherwise the whole process's, and an outage before this client
    // was made may have used it up.
    let allowance = RetryPartition::custom("forwarder").build();
    settings
        .retry_partition(allowance)
        .retry_config(retries.with_max_attempts(attempts))
        .retry_classifier(connector::AskAgain)
        .interceptor(request::Rewrite(spoken.clone()))
        .http_client(connector::Wrap { inner: http, spoken })
}
