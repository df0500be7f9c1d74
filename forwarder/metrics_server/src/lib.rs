//! Serves what a program says of itself over HTTP, without authentication: listen where only your monitoring
//! can connect.
//!
//! | path | answers |
//! |---|---|
//! | `/metrics` | the metrics of a [`prometheus_client`] registry: in the OpenMetrics format where the client accepts it, else in Prometheus' text format 0.0.4 |
//! | `/healthz` | 200 while the process is alive |
//! | `/readyz` | 200 while the program says that it is ready, else 503 and the reason |
//!
//! Clients can't harm the program: a connection has one request and an end, the oldest of too many is closed,
//! and readiness is looked at every few seconds at most, however often it is asked for. [`ask`] is the other
//! side, for the health checks of containers that have no HTTP client. [`register_gauge`] is for what is known at any
//! moment and need not be counted.
//!
//! ```no_run
//! use metrics_server::{Probe, ask, serve};
//! use prometheus_client::metrics::counter::Counter;
//! use prometheus_client::registry::Registry;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), metrics_server::Error> {
//! let requests: Counter = Counter::default();
//! let mut registry = Registry::with_prefix("my_program");
//! registry.register("requests", "Requests that were answered", requests.clone());
//! let stopping = CancellationToken::new(); // once it is cancelled, the program is not ready
//! let ready = async || Err("the database can't be reached".to_owned());
//! let server = serve(([127, 0, 0, 1], 9464).into(), registry, stopping, move || ready()).await?;
//! // … and in another process:
//! let answer = ask(server.address(), Probe::Ready)?;
//! println!("{}: {}", answer.ok, answer.text);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod client;
mod gauge;
mod server;
mod text_format;

pub use client::{Answer, Probe, ask};
pub use gauge::register_gauge;
pub use server::{Ready, Server, serve};

use std::io;
use std::net::SocketAddr;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server can't listen on this address.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Where it was told to listen.
        address: SocketAddr,
        /// Why it can't.
        source: io::Error,
    },
    /// The server that was asked gave no answer.
    #[error("asking {address} failed: {source}")]
    Ask {
        /// Which server was asked.
        address: SocketAddr,
        /// Why there is no answer.
        source: io::Error,
    },
}
