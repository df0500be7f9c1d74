//! A pool of a few connections to one server, for tasks that do the same work and try again until it is done.
//!
//! Other pools answer one question: may I have a connection? This one also answers whether the server works,
//! so that a program knows when to stop taking on work:
//!
//! - A user for which no connection can be opened, because the server allows no more, say, gets one that works
//!   as soon as another user gives it back. The error of opening is the user's only if no connection is in use.
//! - A user whose attempt failed says so until it succeeds. The server counts as out of order while somebody
//!   fails, no connection is idle, and none is in use by somebody who does not fail: [`Pool::works`] waits
//!   for the end of that.
//! - A connection is closed after use unless it is given back: after an error its state is not known.
//!
//! ```
//! use connection_pool::{Manager, Pool};
//! use std::sync::Arc;
//!
//! struct Server(std::net::SocketAddr);
//!
//! impl Manager for Server {
//!     type Connection = tokio::net::TcpStream;
//!     type Error = std::io::Error;
//!     type Reason = String;
//!
//!     async fn open(&self) -> Result<Self::Connection, Self::Error> {
//!         tokio::net::TcpStream::connect(self.0).await
//!     }
//!
//!     fn is_closed(connection: &Self::Connection) -> bool {
//!         matches!(connection.try_read(&mut [0]), Ok(0))
//!     }
//! }
//!
//! # async fn work(_: &tokio::net::TcpStream) -> std::io::Result<()> { Ok(()) }
//! # async fn example(pool: Arc<Pool<Server>>) {
//! let mut failing = None;
//! loop {
//!     let attempt = async {
//!         let in_use = pool.take(failing.is_some(), |error| eprintln!("{error}")).await?;
//!         work(&in_use.connection).await?;
//!         in_use.give_back();
//!         Ok::<_, std::io::Error>(())
//!     };
//!     match attempt.await {
//!         Ok(()) => break,
//!         Err(error) => failing = Some(pool.failing(error.to_string())),
//!     }
//! }
//! # }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod pool;

pub use pool::{Failing, InUse, Pool, Snapshot};

/// What a pool has to know of its connections.
pub trait Manager: Send + Sync + 'static {
    /// A connection.
    type Connection: Send + Sync + 'static;
    /// Why a connection could not be opened.
    type Error: Send + 'static;
    /// What a user says about its attempt that failed.
    type Reason: Clone + Send + Sync + 'static;

    /// Opens a connection.
    fn open(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Whether a connection has ended.
    fn is_closed(connection: &Self::Connection) -> bool;
}
