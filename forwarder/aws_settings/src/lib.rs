//! The AWS SDK's settings, as the environment and profiles give them.
//!
//! The SDK passes over an endpoint that it can't read and asks AWS instead, its HTTP client passes over such a proxy, it
//! panics on some values of other settings and of credentials, and by itself it knows no proxy. [`load()`] refuses these
//! with an [`Error`] that names the setting and never shows its value, and gives an HTTP client that goes through the proxies that
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name:
//!
//! ```no_run
//! # async fn example() -> Result<(), aws_settings::Error> {
//! let settings = aws_settings::load().await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod credentials;
mod endpoint;
mod http;
mod load;

pub use endpoint::endpoint_of;
pub use load::load;

/// A setting that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A variable that gives an endpoint, a proxy or credentials.
    #[error("{name} {wrong}")]
    Value {
        /// The variable.
        name: &'static str,
        /// What is wrong with it, and what to do.
        wrong: &'static str,
    },
    /// A variable whose value the SDK can't use.
    #[error("{0} has a value that the AWS SDK can't use")]
    Variable(String),
    /// A setting of a profile that the SDK can't use.
    #[error("the AWS profile has a setting that the AWS SDK can't use, such as max_attempts or retry_mode")]
    Profile,
}
