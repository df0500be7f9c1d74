//! SQS's Query protocol under the AWS SDK.
//!
//! SQS has two protocols: AWS JSON, which the SDK speaks, and the older Query protocol (forms and XML),
//! the only one that older servers know, LocalStack before 3.0 among them. With this library an ordinary
//! [`aws_sdk_sqs::Client`] talks to either:
//!
//! ```no_run
//! use sqs_query::{Choice, Negotiation};
//! # async fn example() {
//! let settings = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
//! let negotiation = std::sync::Arc::new(Negotiation::new(Choice::Auto));
//! let client = aws_sdk_sqs::Client::from_conf(sqs_query::client_config(&settings, &negotiation).build());
//! # }
//! ```
//!
//! While the Query protocol is in use, an interceptor ([`request`]) rewrites each request before it is
//! signed, and a connector around the SDK's own ([`connector`]) rewrites the answer ([`xml`], [`answer`])
//! before the SDK reads it. Signing, retries and timeouts stay the SDK's. [`negotiation`] finds out which
//! protocol a server speaks. Answers in either protocol have [`limits`] of size and time, so that a broken or
//! hostile server neither fills the memory nor holds a call up; what is beyond them is an [`Error`]. Only a call within
//! [`receiving`] may bring a large one. A
//! message's [`Body`] may be none that the SDK can read, and keeps no other back; [`sent_at()`] reads its time of sending,
//! whatever its unit is, and [`trace_header`] which trace it belongs to. Calls that the forwarder makes are covered: `GetQueueUrl`,
//! `GetQueueAttributes`, `ReceiveMessage`, `DeleteMessageBatch`, `ChangeMessageVisibilityBatch`; others
//! whose parameters have the same shapes work, too, and what can't be rewritten is an error.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod answer;
mod body;
mod bounded;
mod connector;
mod error;
mod json;
mod limits;
mod negotiation;
mod receive;
mod request;
mod sent_at;
#[cfg(test)]
mod tests;
mod trace;
mod xml;

use aws_config::SdkConfig;
use aws_sdk_sqs::config::Builder;
use aws_sdk_sqs::config::retry::{RetryConfig, RetryPartition};
pub use body::Body;
pub use error::Error;
pub use negotiation::Negotiation;
pub use receive::{Turn, receiving};
pub use sent_at::sent_at;
use std::str::FromStr;
use std::sync::Arc;
pub use trace::trace_header;

/// The error code, as the SDK reports it, of a call to a server that does not speak the chosen protocol.
pub const WRONG_PROTOCOL: &str = "WrongProtocol";

/// Which protocol to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// AWS JSON, or the Query protocol with a server that does not speak AWS JSON.
    Auto,
    /// AWS JSON.
    Json,
    /// The Query protocol.
    Query,
}

impl Choice {
    /// The names of all choices, as [`Choice::from_str`] reads them.
    pub const NAMES: [&str; 3] = ["auto", "json", "query"];
}

impl FromStr for Choice {
    type Err = UnknownChoice;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "query" => Ok(Self::Query),
            _ => Err(UnknownChoice),
        }
    }
}

/// A name that is none of [`Choice::NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the protocol is auto, json or query")]
pub struct UnknownChoice;

/// The protocol in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// AWS JSON.
    Json,
    /// The Query protocol.
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

/// An id that no other call has, such as the `ReceiveRequestAttemptId` of a receive.
#[must_use]
pub fn random_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds every RandomState differently.
    format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}

/// The settings of a client that uses the negotiated protocol. Clients of one server share a
/// [`Negotiation`].
pub fn client_config(settings: &SdkConfig, negotiation: &Arc<Negotiation>) -> Builder {
    let retries = settings.retry_config().cloned().unwrap_or_else(RetryConfig::standard);
    // Finding out takes an attempt of its own.
    let attempts = retries.max_attempts() + u32::from(negotiation.is_automatic());
    // The SDK's retry quota is otherwise shared by the whole process, and an outage before this client
    // was made may have used it up.
    let quota = RetryPartition::custom("sqs_query").build();
    let mut config = Builder::from(settings)
        .retry_partition(quota)
        .retry_config(retries.with_max_attempts(attempts))
        .retry_classifier(connector::AskAgain)
        .interceptor(request::Rewrite(negotiation.clone()));
    let inner = settings.http_client();
    config.set_http_client(inner.map(|inner| connector::wrap(inner, negotiation.clone())));
    config
}
