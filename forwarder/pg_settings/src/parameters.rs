//! Where and how to connect, as libpq has it: a URL, and for what it leaves open the environment
//! (PostgreSQL manual, "Connection Strings" and "Environment Variables").

use crate::error::Error;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::collections::BTreeMap;

/// Every parameter that the forwarder knows, and the variable that libpq has for it.
const KNOWN: [(&str, Option<&str>); 26] = [
    ("application_name", Some("PGAPPNAME")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("dbname", Some("PGDATABASE")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("keepalives", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("keepalives_retries", None),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS")),
    ("options", Some("PGOPTIONS")),
    ("passfile", Some("PGPASSFILE")),
    ("password", Some("PGPASSWORD")),
    ("port", Some("PGPORT")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("tcp_user_timeout", None),
    ("user", Some("PGUSER")),
    // The last three are libpq's, and nothing that they ask for is missed here.
    ("client_encoding", Some("PGCLIENTENCODING")),
    ("gssencmode", Some("PGGSSENCMODE")),
    ("sslsni", Some("PGSSLSNI")),
];
const NOT_MISSED: [&str; 3] = ["client_encoding", "gssencmode", "sslsni"];

/// Parameters by name. Not printed: the password is among them.
pub(crate) struct Parameters(BTreeMap<&'static str, String>);

impl Parameters {
    /// What the URL says, and the environment where it says nothing.
    pub(crate) fn read(url: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut given = match url {
            Some(url) => Self::of_url(url)?,
            None => Self(BTreeMap::new()),
        };
        for (name, its_variable) in KNOWN {
            if let Some(value) = its_variable.and_then(&variable).filter(|value| !value.is_empty()) {
                given.0.entry(name).or_insert(value);
            }
        }
        given.0.retain(|name, _| !NOT_MISSED.contains(name));
        Ok(given)
    }

    /// `postgresql://[user[:password]@][host[:port]][,…][/database][?name=value[&…]]`
    fn of_url(url: &str) -> Result<Self, Error> {
        let rest = url.strip_prefix("postgresql://").or_else(|| url.strip_prefix("postgres://"));
        let rest = rest.ok_or(Error::Url)?;
        let mut given = Self(BTreeMap::new());
        // Before the first slash, all up to an @ says who connects.
        let (who, rest) = match rest.find(['@', '/']) {
            Some(at) if rest.as_bytes()[at] == b'@' => (&rest[..at], &rest[at + 1..]),
            _ => ("", rest),
        };
        let (user, password) = who.split_once(':').unwrap_or((who, ""));
        given.set("user", user)?;
        given.set("password", password)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (servers, database) = rest.split_once('/').unwrap_or((rest, ""));
        given.set("dbname", database)?;
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        for server in servers.split(',') {
            let (host, port) = match server.strip_prefix('[').map(|server| server.split_once(']')) {
                Some(bracketed) => bracketed.ok_or(Error::Url)?,
                None => server.split_at(server.find(':').unwrap_or(server.len())),
            };
            hosts.push(host);
            ports.push(match port.strip_prefix(':') {
                Some(port) => port,
                None if port.is_empty() => "",
                None => return Err(Error::Url),
            });
        }
        given.set("host", &hosts.join(","))?;
        if ports.iter().any(|port| !port.is_empty()) {
            given.set("port", &ports.join(","))?;
        }
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').ok_or(Error::Url)? {
                ("ssl", "true") => given.set("sslmode", "require")?, // as JDBC has it, and libpq takes it
                (name, value) => given.set(name, value)?,
            }
        }
        Ok(given)
    }

    /// Sets a parameter to what a part of a URL means, if there is anything.
    fn set(&mut self, name: &str, encoded: &str) -> Result<(), Error> {
        // Of a URL that is not what it should be, what seems a name may be a piece of the password.
        let Some((name, _)) = KNOWN.into_iter().find(|(known, _)| *known == name) else {
            let names = KNOWN.map(|(name, _)| name).join(", ");
            return set_up(format!(
                "the database URL has a parameter that is not known here. These are: {names}."
            ));
        };
        if !encoded.is_empty() {
            let value = percent_decode_str(encoded).decode_utf8().map_err(|_| Error::Url)?;
            self.0.insert(name, value.into_owned());
        }
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// The elements of a comma-separated list.
    pub(crate) fn take_list(&mut self, name: &str) -> Vec<String> {
        self.take(name).map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }

    /// All that are left, read by tokio-postgres, which knows what they may be.
    pub(crate) fn config(&self) -> Result<tokio_postgres::Config, Error> {
        let mut url = "postgresql://?".to_owned();
        for (name, value) in &self.0 {
            let parameter = format!("{name}={}&", utf8_percent_encode(value, NON_ALPHANUMERIC));
            // Its own words may hold the value, which may be a password.
            if format!("postgresql://?{parameter}").parse::<tokio_postgres::Config>().is_err() {
                return not_a(name);
            }
            url.push_str(&parameter);
        }
        url.parse().map_err(|_| Error::Url)
    }
}

/// A value can't be what its parameter says.
pub(crate) fn not_a<T>(name: &str) -> Result<T, Error> {
    let variable = KNOWN.into_iter().find(|(known, _)| *known == name).and_then(|(_, variable)| variable);
    let variable = variable.map(|variable| format!(" or in {variable}")).unwrap_or_default();
    set_up(format!("the database's {name} can't be read. Correct it in the URL{variable}."))
}

fn set_up<T>(what: String) -> Result<T, Error> {
    Err(Error::Setting(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> BTreeMap<&'static str, String> {
        Parameters::read(Some(url), |_| None).map(|parameters| parameters.0).unwrap()
    }

    fn map<const N: usize>(pairs: [(&'static str, &str); N]) -> BTreeMap<&'static str, String> {
        pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        assert_eq!(
            read("postgresql://u:p%40%2F?x@host:5433/db?sslmode=verify-full&application_name=a%20b"),
            map([
                ("user", "u"),
                ("password", "p@/?x"),
                ("host", "host"),
                ("port", "5433"),
                ("dbname", "db"),
                ("sslmode", "verify-full"),
                ("application_name", "a b"),
            ])
        );
        assert_eq!(
            read("postgres://a,[::1]:5433,c/db"),
            map([("host", "a,::1,c"), ("port", ",5433,"), ("dbname", "db")])
        );
        assert_eq!(
            read("postgresql://%2Frun%2Fpostgresql/db?user=u&ssl=true"),
            map([("host", "/run/postgresql"), ("dbname", "db"), ("user", "u"), ("sslmode", "require")])
        );
        assert_eq!(read("postgresql://"), map([]));
        assert_eq!(read("postgresql:///d%40b?gssencmode=disable"), map([("dbname", "d@b")]));
    }

    #[test]
    fn what_the_url_leaves_open_the_environment_says() {
        let variable = |name: &str| match name {
            "PGHOST" => Some("elsewhere".to_owned()),
            "PGPORT" => Some("5433".to_owned()),
            "PGUSER" => Some(String::new()),
            _ => None,
        };
        let found = Parameters::read(Some("postgresql://here"), variable).map(|parameters| parameters.0);
        assert_eq!(found.unwrap(), map([("host", "here"), ("port", "5433")]));
    }

    #[test]
    fn what_is_wrong_is_said_without_showing_it() {
        for url in [
            "host=somewhere password=secret",
            "postgresql://u:secret@[::1",
            "postgresql://[::1]secret",
            "postgresql://host/db?secret",
            "postgresql://u:secret/x?secret=1@host/db",
            "postgresql://u:%FFsecret@host",
        ] {
            let error = Parameters::read(Some(url), |_| None).err().unwrap().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        let wrong = Parameters::read(Some("postgresql://?channel_binding=secret"), |_| None).unwrap();
        let error = wrong.config().err().unwrap().to_string();
        assert_eq!(
            error,
            "the database's channel_binding can't be read. Correct it in the URL or in PGCHANNELBINDING."
        );
    }
}
