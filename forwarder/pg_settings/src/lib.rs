//! libpq's connection settings for tokio-postgres.
//!
//! Programs that use libpq are all told in the same way where and how to connect: by a URL, by the
//! variables `PGHOST`, `PGSSLMODE` and so on, by password files, certificates in `~/.postgresql`. This
//! library reads the same settings, as PostgreSQL's manual describes them in the chapter on libpq, and
//! connects with tokio-postgres and rustls:
//!
//! ```no_run
//! # async fn example() -> Result<(), pg_settings::Error> {
//! let url = std::env::var("DATABASE_URL").ok();
//! let settings = pg_settings::Settings::read(url.as_deref(), |name| std::env::var(name).ok())?;
//! let connection = settings.connect().await?;
//! let rows = connection.client.query("SELECT 1", &[]).await;
//! # Ok(())
//! # }
//! ```
//!
//! [`parameters`] reads URL and variables, [`passfile`] and [`secret_file`] know passwords, [`tls`] and
//! [`certificate`] make a connection safe, [`connection`] connects, and [`refusal`] says what it means
//! when that fails. Passwords are never in an error or in debug output.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod certificate;
mod connection;
mod error;
mod parameters;
mod passfile;
mod refusal;
mod secret_file;
mod tls;

pub use connection::{Connection, Settings};
pub use error::{Error, Kind};
pub use tls::Protection;
