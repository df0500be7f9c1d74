//! Which database: the URL among the flags. For what it leaves open, or without one, the variables count
//! that libpq knows.

use crate::error::Error;
use clap::Args;
use pg_settings::Settings;

/// Which database. For what a URL leaves open, or without one, the variables count that libpq knows:
/// `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE`, `PGSSLMODE`, `PGSSLROOTCERT` and so on.
#[derive(Args)]
pub(crate) struct DatabaseUrl {
    /// `postgresql://user@host:port/database?sslmode=verify-full`; what it leaves open, PGHOST, PGUSER,
    /// PGSSLMODE and so on say. A password is better kept in PGPASSWORD, ~/.pgpass, or a file that
    /// PGPASSWORD_FILE names.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,

    /// Whether the URL is an argument, which the process list shows.
    #[arg(skip)]
    pub(crate) shown: bool,
}

/// A URL may hold a password.
impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatabaseUrl")
    }
}

impl DatabaseUrl {
    /// Where and as whom to connect; nothing that anybody would have to ask for.
    pub(crate) fn settings(&self) -> Result<Settings, Error> {
        let url = self.database_url.as_deref().filter(|url| !url.is_empty());
        let settings = Settings::read(url, |name| std::env::var(name).ok())?;
        if self.shown
            && url.is_some_and(|url| Settings::read(Some(url), |_| None).is_ok_and(|url| url.has_password()))
        {
            tracing::warn!(
                "the process list shows the password in --database-url; give it in PGPASSWORD, DATABASE_URL or ~/.pgpass"
            );
        }
        Ok(settings)
    }
}
