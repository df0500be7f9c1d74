//! `postgresql://[user[:password]@][host[:port]][,…][/database][?name=value[&…]]`, as libpq reads it
//! (PostgreSQL manual, "Connection URIs").
//!
//! A URL that was put together carelessly may have a piece of the password anywhere, so no error shows
//! any part of it.

use crate::error::Error;
use crate::known;
use percent_encoding::percent_decode_str;

/// The parameters that a URL gives, in its order.
pub(crate) fn parameters(url: &str) -> Result<Vec<(&'static str, String)>, Error> {
    let rest = url.strip_prefix("postgresql://").or_else(|| url.strip_prefix("postgres://"));
    let rest = rest.ok_or(Error::Url)?;
    let mut given = Given::default();
    // Before the first slash, all up to an @ says who connects.
    let (who, rest) = match rest.find(['@', '/']) {
        Some(at) if rest.as_bytes()[at] == b'@' => (&rest[..at], &rest[at + 1..]),
        _ => ("", rest),
    };
    let (user, password) = who.split_once(':').unwrap_or((who, ""));
    given.add("user", user)?;
    given.add("password", password)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // Another @ belongs to the password, whose tail would be taken for a host or a database and shown.
    if rest.contains('@') {
        return Err(Error::UnescapedAt);
    }
    let (servers, database) = rest.split_once('/').unwrap_or((rest, ""));
    given.add("dbname", database)?;
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
    given.add("host", &hosts.join(","))?;
    if ports.iter().any(|port| !port.is_empty()) {
        given.add("port", &ports.join(","))?;
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=').ok_or(Error::Url)? {
            ("ssl", "true") => given.add("sslmode", "require")?, // as JDBC has it, and libpq takes it
            (name, value) => given.add(name, value)?,
        }
    }
    Ok(given.0)
}

#[derive(Default)]
struct Given(Vec<(&'static str, String)>);

impl Given {
    /// Adds what a part of the URL says, if it says anything.
    fn add(&mut self, name: &str, encoded: &str) -> Result<(), Error> {
        let known = known::find(name).ok_or_else(|| {
            Error::Setting(
                "the database URL has a parameter that libpq does not know. PostgreSQL's manual lists those that it knows under \"Parameter Key Words\".".to_owned(),
            )
        })?;
        if !encoded.is_empty() {
            self.0.push((known.name, decoded(encoded).ok_or(Error::UnescapedPercent)?));
        }
        Ok(())
    }
}

/// What a part of the URL means. Each `%` has to have two hexadecimal digits after it.
fn decoded(encoded: &str) -> Option<String> {
    let escapes = encoded.split('%').skip(1);
    let is_escape = |escape: &str| {
        escape.len() >= 2
            && escape.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit)
            && !escape.starts_with("00")
    };
    if !escapes.into_iter().all(is_escape) {
        return None;
    }
    percent_decode_str(encoded).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(url: &str, expected: &[(&str, &str)]) {
        let read = parameters(url).unwrap();
        let read: Vec<(&str, &str)> = read.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        reads(
            "postgresql://u:p%40%2F?x@host:5433/db?sslmode=verify-full&application_name=a%20b",
            &[
                ("user", "u"),
                ("password", "p@/?x"),
                ("dbname", "db"),
                ("host", "host"),
                ("port", "5433"),
                ("sslmode", "verify-full"),
                ("application_name", "a b"),
            ],
        );
        reads("postgres://a,[::1]:5433,c/db", &[("dbname", "db"), ("host", "a,::1,c"), ("port", ",5433,")]);
        reads(
            "postgresql://%2Frun%2Fpostgresql/db?user=u@corp&ssl=true",
            &[("dbname", "db"), ("host", "/run/postgresql"), ("user", "u@corp"), ("sslmode", "require")],
        );
        reads("postgresql://", &[]);
        reads("postgresql:///d%40b?gssencmode=disable", &[("dbname", "d@b"), ("gssencmode", "disable")]);
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
            "postgresql://u:%zzsecret@host",
            "postgresql://u:x%00secret@host",
            "postgresql://u:secret%@host",
            "postgresql://u:secret@secret@host/db",
            "postgresql://u:1/secret@host/db",
            "postgresql://u:x@y/secret@host/db",
        ] {
            let error = parameters(url).err().unwrap_or_else(|| panic!("{url}")).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        let error = parameters("postgresql://u:secret@secret@host/db").unwrap_err();
        assert!(error.to_string().contains("%40"), "{error}");
    }
}
