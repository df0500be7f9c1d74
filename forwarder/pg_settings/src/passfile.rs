//! Passwords from `~/.pgpass` (PostgreSQL manual, "The Password File").

use crate::file::{self, Unusable};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Whom a password is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Login<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
}

/// What a password file has for a login.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// This password.
    Password(Vec<u8>),
    /// No line that fits.
    NoLine,
    /// The file is not there.
    NoFile,
    /// The file is there and is not used, for this reason.
    NotUsed(String),
}

/// Looks a login up. A file that others may read is not used.
pub(crate) fn password(file: &Path, login: Login<'_>) -> Found {
    let shown = file.display();
    let not_used = |why: &str| {
        warn_once(&format!("the password file {shown} is not used: {why}"));
        Found::NotUsed(why.to_owned())
    };
    match file::read(file) {
        Err(Unusable::Missing) => Found::NoFile,
        Err(why) => not_used(&format!("it {why}")),
        Ok(_) if others_may_read(file) => {
            not_used(&format!("others than its owner have rights to it. Run: chmod 600 {shown}"))
        }
        Ok(text) => find(&text, login).map_or(Found::NoLine, Found::Password),
    }
}

fn others_may_read(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|about| about.permissions().mode() & 0o077 != 0)
}

/// Connections come and go; what is wrong with the file is said once.
fn warn_once(text: &str) {
    static SAID: std::sync::Once = std::sync::Once::new();
    SAID.call_once(|| tracing::warn!("{text}"));
}

/// The first line that fits counts.
fn find(text: &[u8], login: Login<'_>) -> Option<Vec<u8>> {
    let port = login.port.to_string();
    let wanted = [login.host, &port, login.database, login.user];
    // The default directories of the server's socket go by the name localhost, too.
    let is_default_socket = ["/tmp", "/run/postgresql", "/var/run/postgresql"].contains(&login.host);
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"#") {
            return None;
        }
        let mut fields = fields(line).into_iter();
        for (place, wanted) in wanted.into_iter().enumerate() {
            let field = fields.next()?;
            let fits = field.raw == b"*"
                || field.text == wanted.as_bytes()
                || (place == 0 && is_default_socket && field.text == b"localhost");
            if !fits {
                return None;
            }
        }
        Some(fields.next()?.text)
    })
}

/// A field as it is written and as it is meant.
#[derive(Default)]
struct Field {
    raw: Vec<u8>,
    text: Vec<u8>,
}

/// Fields end at a colon; a backslash takes away what the next character means.
fn fields(line: &[u8]) -> Vec<Field> {
    let mut fields = vec![Field::default()];
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte == b':' {
            fields.push(Field::default());
            continue;
        }
        let Some(field) = fields.last_mut() else { break };
        field.raw.push(byte);
        if byte != b'\\' {
            field.text.push(byte);
        } else if let Some(escaped) = bytes.next() {
            field.raw.push(escaped);
            field.text.push(escaped);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, login: Login<'_>) -> Option<String> {
        find(text.as_bytes(), login).map(|password| String::from_utf8(password).unwrap())
    }

    const LOGIN: Login<'_> = Login { host: "db.example", port: 5432, database: "logins", user: "forwarder" };

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "# a comment\nother:5432:logins:forwarder:no\ndb.example:5432:logins:forwarder:yes\r\n*:*:*:*:late\n";
        assert_eq!(found(text, LOGIN).as_deref(), Some("yes"));
        assert_eq!(found(text, Login { user: "x", ..LOGIN }).as_deref(), Some("late"));
        assert_eq!(found("db.example:5433:logins:forwarder:no", LOGIN), None);
        assert_eq!(found("db.example:5432:logins", LOGIN), None);
        assert_eq!(found("#*:*:*:*:no", LOGIN), None);
        assert_eq!(found("", LOGIN), None);
    }

    #[test]
    fn backslashes_escape() {
        assert_eq!(found(r"*:*:*:*:a\:b\\c", LOGIN).as_deref(), Some(r"a:b\c"));
        let odd = Login { host: "::1", database: "*", ..LOGIN };
        assert_eq!(found(r"\:\:1:5432:\*:forwarder:v6", odd).as_deref(), Some("v6"));
        assert_eq!(found(r"\:\:1:5432:\*:forwarder:v6", Login { database: "logins", ..odd }), None);
    }

    #[test]
    fn a_default_socket_is_localhost() {
        let socket = Login { host: "/var/run/postgresql", ..LOGIN };
        assert_eq!(found("localhost:*:*:*:here", socket).as_deref(), Some("here"));
        assert_eq!(found("localhost:*:*:*:here", Login { host: "/srv/socket", ..LOGIN }), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        assert_eq!(password(&path, LOGIN), Found::NoFile);
        std::fs::write(&path, "*:*:*:forwarder:secret").unwrap();
        let with_mode = |mode, login| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            password(&path, login)
        };
        assert_eq!(with_mode(0o600, LOGIN), Found::Password(b"secret".to_vec()));
        assert_eq!(with_mode(0o600, Login { user: "x", ..LOGIN }), Found::NoLine);
        let Found::NotUsed(why) = with_mode(0o640, LOGIN) else { panic!("others may read it") };
        assert!(why.contains("chmod 600"), "{why}");
        assert!(matches!(password(Path::new("/dev/null"), LOGIN), Found::NotUsed(_)));
    }
}
