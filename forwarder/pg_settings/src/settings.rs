//! Everything that connecting needs, read once.

use crate::error::Error;
use crate::parameters::{Ignored, Parameters, path, variable};
use crate::passfile::{self, Found, Login};
use crate::require_auth::RequireAuth;
use crate::secret_file;
use crate::server::{Liveness, Server};
use crate::target::Target;
use crate::tls::Tls;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::config::ChannelBinding;

/// Where and how to connect.
#[derive(Debug)]
pub struct Settings {
    /// In the order in which they are tried.
    pub(crate) servers: Vec<Server>,
    /// Servers and addresses are tried in a random order instead.
    pub(crate) shuffled: bool,
    /// What is common to all servers. tokio-postgres shows no password of it.
    common: tokio_postgres::Config,
    pub(crate) tls: Tls,
    pub(crate) require_auth: RequireAuth,
    pub(crate) target: Target,
    pub(crate) liveness: Liveness,
    /// How long one attempt may take.
    pub(crate) connect_timeout: Option<Duration>,
    /// Where the password was found, if it was.
    password_from: Option<String>,
    password_file: Option<PathBuf>,
    secret_file: Option<PathBuf>,
    ignored: Vec<Ignored>,
    pub(crate) answer_limit: usize,
}

/// The most bytes of a server's answer unless [`Settings::limit_answers`] says otherwise.
pub const ANSWER_LIMIT: usize = 64 << 20;

impl Settings {
    /// Reads the URL, if there is one, and the service file and the variables that libpq knows for what it
    /// leaves open. `defaults` are parameters that the program prefers to libpq's own defaults.
    /// `PGPASSWORD_FILE`, which libpq does not know, names a file with nothing but the password.
    pub fn read(
        url: Option<&str>,
        defaults: &[(&'static str, &str)],
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        Self::of(&mut Parameters::read(url, defaults, &environment)?, environment)
    }

    fn of(given: &mut Parameters, environment: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let home = path(&environment, "HOME");
        let tls = Tls::read(given, home.as_deref())?;
        let password_file = given.take_path("passfile").or_else(|| Some(home.as_deref()?.join(".pgpass")));
        let timeout = given.take_number::<i64>("connect_timeout")?;
        let orders = [("disable", false), ("random", true)];
        Ok(Self {
            password_from: given.origin("password"),
            servers: Server::read(given)?,
            shuffled: given.take_one_of("load_balance_hosts", &orders)?.unwrap_or(false),
            require_auth: given.take_as("require_auth", RequireAuth::read)?.unwrap_or_default(),
            target: Target::read(given)?,
            liveness: Liveness::read(given)?,
            // As in libpq: none, if it is not positive.
            connect_timeout: timeout
                .and_then(|seconds| u64::try_from(seconds).ok().filter(|s| *s > 0))
                .map(Duration::from_secs),
            common: common(given, variable(&environment, "USER")?)?,
            ignored: given.take_ignored(),
            secret_file: path(&environment, "PGPASSWORD_FILE"),
            answer_limit: ANSWER_LIMIT,
            tls,
            password_file,
        })
    }

    /// Gives up servers that answer with more bytes than this to one statement.
    #[must_use]
    pub fn limit_answers(self, bytes: usize) -> Self {
        Self { answer_limit: bytes, ..self }
    }

    /// The names and ports of the servers that are tried, as messages show them.
    pub fn servers(&self) -> String {
        let names: Vec<&str> = self.servers.iter().map(|server| &*server.name).collect();
        names.join(", ")
    }

    /// Whether a password was given in the URL, a service file or PGPASSWORD.
    pub fn has_password(&self) -> bool {
        self.password_from.is_some()
    }

    /// The settings of libpq's that were given and have no effect.
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// What tokio-postgres has to know to log in to a server, and where the password comes from. Files
    /// are read for each connection: passwords may be renewed meanwhile.
    pub(crate) fn login(&self, server: &Server) -> Result<(tokio_postgres::Config, String), Error> {
        let mut config = self.common.clone();
        if let Some(from) = &self.password_from {
            return Ok((config, from.clone()));
        }
        if let Some(file) = &self.secret_file {
            config.password(secret_file::password(file)?);
            return Ok((config, format!("from {}", file.display())));
        }
        let Some(file) = &self.password_file else { return Ok((config, "none was given".to_owned())) };
        let user = config.get_user().unwrap_or_default();
        let database = config.get_dbname().unwrap_or(user);
        let login = Login { host: &server.host, port: server.port, database, user };
        let shown = file.display();
        let from = match passfile::password(file, login) {
            Found::Password(password) => {
                config.password(password);
                format!("from {shown}")
            }
            Found::NoLine => format!("none was given, and {shown} has none for it"),
            Found::NoFile => format!("none was given, and {shown} is not there"),
            Found::NotUsed(why) => format!("none was given, and {shown} is not used: {why}"),
        };
        Ok((config, from))
    }
}

/// What is left of the parameters: what the server is told.
fn common(given: &mut Parameters, system_user: Option<String>) -> Result<tokio_postgres::Config, Error> {
    let mut config = tokio_postgres::Config::new();
    if let Some(user) = given.take("user").or(system_user) {
        config.user(user);
    }
    if let Some(password) = given.take("password") {
        config.password(password);
    }
    if let Some(database) = given.take("dbname") {
        config.dbname(database);
    }
    if let Some(options) = given.take("options") {
        config.options(options);
    }
    let fallback = given.take("fallback_application_name");
    if let Some(name) = given.take("application_name").or(fallback) {
        config.application_name(name);
    }
    let bindings = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    if let Some(binding) = given.take_one_of("channel_binding", &bindings)? {
        config.channel_binding(binding);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::{Handling, PARAMETERS};

    #[test]
    fn no_password_is_printed() {
        let settings = Settings::read(Some("postgresql://u:hunter2@a,b/db"), &[], |_| None).unwrap();
        assert!(settings.has_password() && !format!("{settings:?}").contains("hunter2"));
    }

    /// A parameter that nothing takes would be passed over in silence.
    #[test]
    fn every_parameter_that_is_honoured_is_taken() {
        let value = |name| match name {
            "host" | "user" | "password" | "dbname" | "passfile" | "options" => "x",
            "hostaddr" => "192.0.2.1",
            "require_auth" => "md5",
            "channel_binding" | "sslmode" => "require",
            "sslnegotiation" => "direct",
            "target_session_attrs" => "any",
            "load_balance_hosts" => "random",
            "ssl_min_protocol_version" | "ssl_max_protocol_version" => "TLSv1.3",
            "sslcertmode" => "allow",
            _ => "1",
        };
        for known in PARAMETERS.iter().filter(|known| known.handling == Handling::Honoured) {
            if ["service", "servicefile"].contains(&known.name) {
                continue; // these are taken before all others
            }
            let mut query = format!("{}={}", known.name, value(known.name));
            if known.name == "sslnegotiation" {
                query.push_str("&sslmode=require");
            }
            let mut given = Parameters::read(Some(&format!("postgresql://?{query}")), &[], |_| None).unwrap();
            Settings::of(&mut given, |_| None).unwrap();
            assert_eq!(given.take(known.name), None, "{}", known.name);
        }
    }

    #[test]
    fn times_have_libpqs_units() {
        let settings = |query: &str| {
            Settings::read(Some(&format!("postgresql://?{query}")), &[("connect_timeout", "10")], |_| None)
                .unwrap()
        };
        assert_eq!(settings("").connect_timeout, Some(Duration::from_secs(10)));
        assert_eq!(settings("connect_timeout=3").connect_timeout, Some(Duration::from_secs(3)));
        assert_eq!(settings("connect_timeout=0").connect_timeout, None);
        assert_eq!(settings("connect_timeout=-1").connect_timeout, None);
    }
}
