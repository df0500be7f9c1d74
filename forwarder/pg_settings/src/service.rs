//! Service files: named groups of parameters (PostgreSQL manual, "The Connection Service File").

use crate::error::Error;
use crate::file::{self, Unusable};
use crate::known;
use std::path::{Path, PathBuf};

/// A service's parameters, in the file's order, and the file.
#[derive(Debug, PartialEq)]
pub(crate) struct Service {
    pub(crate) file: PathBuf,
    pub(crate) parameters: Vec<(&'static str, String)>,
}

/// Where to look for services.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    /// The file that `servicefile` or `PGSERVICEFILE` names; it has to be there.
    pub(crate) named: Option<PathBuf>,
    /// The user's folder, where `.pg_service.conf` may be.
    pub(crate) home: Option<PathBuf>,
    /// The folder that `PGSYSCONFDIR` names, where `pg_service.conf` may be.
    pub(crate) system: Option<PathBuf>,
}

/// Where libpq looks without `PGSYSCONFDIR` is decided when it is built: on Debian, by the packages of
/// postgresql.org for Red Hat, and by PostgreSQL's own default.
const SYSTEM: [&str; 3] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc"];

impl Places {
    /// Finds a service. The user's file counts before the system's.
    pub(crate) fn find(&self, name: &str) -> Result<Service, Error> {
        let users = match (&self.named, &self.home) {
            (Some(named), _) => Some(named.clone()),
            (None, Some(home)) => Some(home.join(".pg_service.conf")).filter(|file| file.exists()),
            (None, None) => None,
        };
        let systems = match &self.system {
            Some(folder) => vec![folder.clone()],
            None => SYSTEM.map(PathBuf::from).to_vec(),
        };
        let systems =
            systems.iter().map(|folder| folder.join("pg_service.conf")).filter(|file| file.exists());
        let files: Vec<PathBuf> = users.into_iter().chain(systems).collect();
        for file in &files {
            let text = file::read(file).map_err(|error| unusable(file, &error))?;
            if let Some(parameters) = parse(&text, name).map_err(|wrong| wrong.at(file))? {
                return Ok(Service { file: file.clone(), parameters });
            }
        }
        let looked: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        Err(Error::Setting(match looked.as_slice() {
            [] => format!(
                "there is no service file to find the service \"{name}\" in. Name it in PGSERVICEFILE, or make ~/.pg_service.conf."
            ),
            looked => format!("the service \"{name}\" is not in {}", looked.join(" or ")),
        }))
    }
}

fn unusable(file: &Path, error: &Unusable) -> Error {
    Error::Setting(format!("the service file {} {error}", file.display()))
}

/// What is wrong in which line; lines are not shown, since they may hold a password.
struct Wrong {
    line: usize,
    what: &'static str,
}

impl Wrong {
    fn at(self, file: &Path) -> Error {
        Error::Setting(format!("the service file {}, line {}: {}", file.display(), self.line, self.what))
    }
}

/// The parameters of a service, if the text has it. Of a parameter that is given twice the first counts.
fn parse(text: &[u8], name: &str) -> Result<Option<Vec<(&'static str, String)>>, Wrong> {
    let mut found: Option<Vec<(&'static str, String)>> = None;
    for (place, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let wrong = |what| Wrong { line: place + 1, what };
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if let Some(header) = line.strip_prefix(b"[") {
            if found.is_some() {
                break;
            }
            let section = header.split(|byte| *byte == b']').next().unwrap_or_default();
            if section == name.as_bytes() {
                found = Some(Vec::new());
            }
            continue;
        }
        let Some(parameters) = &mut found else { continue };
        if line.starts_with(b"ldap") {
            return Err(wrong(
                "looking parameters up by LDAP is not supported. Write the parameters themselves here.",
            ));
        }
        let line = std::str::from_utf8(line).map_err(|_| wrong("it is not UTF-8"))?;
        let (key, value) = line.split_once('=').ok_or_else(|| wrong("it is not of the form name=value"))?;
        if ["service", "servicefile"].contains(&key) {
            return Err(wrong("a service can't name another one"));
        }
        let known = known::find(key).ok_or_else(|| wrong("libpq has no parameter of this name"))?;
        if !parameters.iter().any(|(name, _)| *name == known.name) {
            parameters.push((known.name, value.to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# a comment\n[other]\nhost=elsewhere\n\n[logins]\n  host=db.example\r\nport=5433\nhost=late\n \
                        # another\npassword= a=b \n[more]\ndbname=x\n";

    fn parsed(text: &str, name: &str) -> Result<Option<Vec<(&'static str, String)>>, String> {
        parse(text.as_bytes(), name).map_err(|wrong| wrong.at(Path::new("file")).to_string())
    }

    #[test]
    fn a_service_is_the_lines_after_its_name() {
        let expected = [("host", "db.example"), ("port", "5433"), ("password", " a=b")];
        let expected = expected.map(|(name, value)| (name, value.to_owned())).to_vec();
        assert_eq!(parsed(FILE, "logins"), Ok(Some(expected)));
        assert_eq!(parsed(FILE, "login"), Ok(None));
        assert_eq!(parsed("[empty]", "empty"), Ok(Some(Vec::new())));
        // What is wrong in another service's lines is nobody's business here.
        assert_eq!(parsed("[broken]\nnonsense\n[good]\nport=1\n", "good").unwrap().unwrap().len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line_and_not_shown() {
        for (line, saying) in [
            ("ldap://ldap.example/dc=secret?description?one", "LDAP is not supported"),
            ("secret", "name=value"),
            ("secret=1", "no parameter"),
            (" host =secret", "no parameter"),
            ("service=secret", "another"),
            ("servicefile=secret", "another"),
        ] {
            let error = parsed(&format!("[s]\nport=1\n{line}\n"), "s").unwrap_err();
            assert!(error.contains("file, line 3: ") && error.contains(saying), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn files_are_looked_into_in_libpqs_order() {
        let folder = tempfile::tempdir().unwrap();
        let (home, system) = (folder.path().join("home"), folder.path().join("system"));
        std::fs::create_dir(&home).unwrap();
        std::fs::create_dir(&system).unwrap();
        let named = folder.path().join("named.conf");
        let places = |named: Option<&PathBuf>| Places {
            named: named.cloned(),
            home: Some(home.clone()),
            system: Some(system.clone()),
        };
        let port = |places: Places| places.find("s").map(|service| service.parameters[0].1.clone());
        let error = places(None).find("s").unwrap_err().to_string();
        assert!(error.contains("no service file"), "{error}");
        std::fs::write(system.join("pg_service.conf"), "[s]\nport=3\n").unwrap();
        assert_eq!(port(places(None)).unwrap(), "3");
        std::fs::write(home.join(".pg_service.conf"), "[t]\nport=2\n").unwrap();
        assert_eq!(port(places(None)).unwrap(), "3");
        std::fs::write(home.join(".pg_service.conf"), "[s]\nport=2\n").unwrap();
        assert_eq!(port(places(None)).unwrap(), "2");
        let error = port(places(Some(&named))).unwrap_err().to_string();
        assert!(error.contains("named.conf is not there"), "{error}");
        std::fs::write(&named, "[s]\nport=1\n").unwrap();
        assert_eq!(port(places(Some(&named))).unwrap(), "1");
        let error = places(Some(&named)).find("absent").unwrap_err().to_string();
        assert!(error.contains("\"absent\" is not in") && error.contains("named.conf or "), "{error}");
    }
}
