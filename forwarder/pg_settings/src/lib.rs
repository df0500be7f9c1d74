//! libpq's connection settings for tokio-postgres.
//!
//! Programs that use libpq are all told in the same way where and how to connect: by a URL, by the
//! variables `PGHOST`, `PGSSLMODE` and so on, by service files, password files and certificates in
//! `~/.postgresql`. This library reads the same settings, as PostgreSQL's manual describes them in the
//! chapter on libpq, and connects with tokio-postgres and rustls. A setting that asks for protection and
//! can't be honoured is an error; what has no effect otherwise is listed by [`Settings::ignored`].
//!
//! ```no_run
//! # async fn example() -> Result<(), pg_settings::Error> {
//! let url = std::env::var("DATABASE_URL").ok();
//! let defaults = [("fallback_application_name", "example"), ("connect_timeout", "10")];
//! let settings = pg_settings::Settings::read(url.as_deref(), &defaults, |name| std::env::var_os(name))?;
//! let connection = settings.connect().await?;
//! let rows = connection.client.query("SELECT 1", &[]).await;
//! # Ok(())
//! # }
//! ```
//!
//! [`known`] is the table of all parameters and what becomes of each. [`parameters`] puts together what
//! [`url`], [`service`] files and variables give, and [`settings`] reads what it means: the [`server`]s,
//! [`tls`] and its [`certificate`]s, [`require_auth`], the [`target`], and the passwords of [`passfile`]
//! and [`secret_file`]. [`connection`] connects, [`wire`] listens to what the server says meanwhile, and
//! [`refusal`] says what it means when that fails. Passwords are never in an error or in debug output.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod certificate;
mod connection;
mod error;
mod file;
mod known;
mod parameters;
mod passfile;
mod refusal;
mod require_auth;
mod secret_file;
mod server;
mod service;
mod settings;
mod target;
mod tls;
mod url;
mod wire;

pub use connection::Connection;
pub use error::{Cause, Error, Kind};
pub use parameters::Ignored;
pub use settings::{ANSWER_LIMIT, Settings};
pub use tls::Protection;
