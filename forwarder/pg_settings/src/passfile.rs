//! Passwords from `~/.pgpass` (PostgreSQL manual, "The Password File").

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

/// The password that a file holds for a login. A file that others may read is not used.
pub(crate) fn password(file: &Path, login: Login<'_>) -> Option<Vec<u8>> {
    let about = std::fs::metadata(file).ok()?;
    let shown = file.display();
    if !about.is_file() {
        warn_once(&format!("the password file {shown} is not used: it is no plain file"));
        return None;
    }
    if about.permissions().mode() & 0o077 != 0 {
        warn_once(&format!(
            "the password file {shown} is not used: others than its owner have rights to it. Run: chmod 600 {shown}"
        ));
        return None;
    }
    match std::fs::read(file) {
        Ok(text) => find(&text, login),
        Err(error) => {
            warn_once(&format!("the password file {shown} is not used: {error}"));
            None
        }
    }
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
        let path = std::env::temp_dir().join(format!("pg_mask-pgpass-{}", std::process::id()));
        std::fs::write(&path, "*:*:*:*:secret").unwrap();
        let with_mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            password(&path, LOGIN)
        };
        let (open, closed) = (with_mode(0o640), with_mode(0o600));
        std::fs::remove_file(&path).unwrap();
        assert_eq!((open, closed), (None, Some(b"secret".to_vec())));
        assert_eq!(password(&path, LOGIN), None);
    }
}
