//! All that was said about a connection, put together. What stands in the URL counts before a service
//! file, that before the variables, and these before the program's own defaults, as in libpq.

use crate::error::Error;
use crate::known::{Handling, IGNORED_VARIABLES, PARAMETERS};
use crate::service::Places;
use crate::url;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

/// Parameters by name. Not printed: the password is among them.
pub(crate) struct Parameters {
    given: BTreeMap<&'static str, Given>,
    ignored: Vec<Ignored>,
}

struct Given {
    value: String,
    origin: Origin,
}

/// Where a parameter was found.
#[derive(Debug, Clone, PartialEq)]
enum Origin {
    Url,
    Service(PathBuf),
    Variable(&'static str),
    Program,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url => f.write_str("in the database URL"),
            Self::Service(file) => write!(f, "in {}", file.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Program => f.write_str("the program's default"),
        }
    }
}

/// A setting of libpq's that was given and has no effect. None of these asks for protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The parameter or variable, and where it was found.
    pub setting: String,
    /// Why it has no effect.
    pub why: &'static str,
}

impl std::fmt::Display for Ignored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} has no effect: {}", self.setting, self.why)
    }
}

impl Parameters {
    /// Reads the URL, the service file that is named, and the environment; takes the program's defaults
    /// for what is open then.
    pub(crate) fn read(
        url: Option<&str>,
        defaults: &[(&'static str, &str)],
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let variable = |name: &str| variable(&environment, name);
        let mut all = Self { given: BTreeMap::new(), ignored: Vec::new() };
        for (name, value) in url.map(url::parameters).transpose()?.unwrap_or_default() {
            // The last of a URL counts, as in libpq.
            all.given.insert(name, Given { value, origin: Origin::Url });
        }
        let given_or = |all: &mut Self, name, its_variable| match all.take(name) {
            Some(value) => Ok(Some(value)),
            None => variable(its_variable),
        };
        if let Some(service) = given_or(&mut all, "service", "PGSERVICE")? {
            let places = Places {
                named: given_or(&mut all, "servicefile", "PGSERVICEFILE")?.map(PathBuf::from),
                home: path(&environment, "HOME"),
                system: path(&environment, "PGSYSCONFDIR"),
            };
            let found = places.find(&service)?;
            for (name, value) in found.parameters.into_iter().filter(|(_, value)| !value.is_empty()) {
                all.add(name, value, Origin::Service(found.file.clone()));
            }
        }
        for known in PARAMETERS {
            let Some(name) = known.variable else { continue };
            if let Some(value) = variable(name)? {
                all.add(known.name, value, Origin::Variable(name));
            }
        }
        // The manual no longer names it, but libpq takes it for sslmode=require.
        if variable("PGREQUIRESSL")?.is_some_and(|value| value.starts_with('1')) {
            all.add("sslmode", "require".to_owned(), Origin::Variable("PGREQUIRESSL"));
        }
        for (name, value) in defaults {
            all.add(name, (*value).to_owned(), Origin::Program);
        }
        for (name, why) in IGNORED_VARIABLES {
            if variable(name)?.is_some() {
                all.ignored.push(Ignored { setting: (*name).to_owned(), why });
            }
        }
        all.sort_out()?;
        Ok(all)
    }

    fn add(&mut self, name: &'static str, value: String, origin: Origin) {
        self.given.entry(name).or_insert(Given { value, origin });
    }

    /// Takes out what has no effect; refuses what asks for something that can't be done.
    fn sort_out(&mut self) -> Result<(), Error> {
        for known in PARAMETERS {
            let Some(Given { value, origin }) = self.given.get(known.name) else { continue };
            match known.handling {
                Handling::Honoured => continue,
                Handling::Refused { unless, why } if !unless.contains(&value.as_str()) => {
                    return Err(Error::Setting(format!(
                        "{} ({origin}) can't be honoured: {why}",
                        known.name
                    )));
                }
                Handling::Refused { .. } => {}
                Handling::Ignored(why) => {
                    let setting = format!("{} ({origin})", known.name);
                    self.ignored.push(Ignored { setting, why });
                }
            }
            self.given.remove(known.name);
        }
        Ok(())
    }

    /// What was given and has no effect.
    pub(crate) fn take_ignored(&mut self) -> Vec<Ignored> {
        std::mem::take(&mut self.ignored)
    }

    /// Where a parameter was found, to be shown.
    pub(crate) fn origin(&self, name: &str) -> Option<String> {
        self.given.get(name).map(|given| given.origin.to_string())
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.given.remove(name).map(|given| given.value)
    }

    pub(crate) fn take_path(&mut self, name: &str) -> Option<PathBuf> {
        self.take(name).map(PathBuf::from)
    }

    /// The elements of a comma-separated list.
    pub(crate) fn take_list(&mut self, name: &str) -> Vec<String> {
        self.take(name).map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }

    /// A parameter that `read` understands. What it doesn't is an error that does not show the value,
    /// which may be a piece of the password.
    pub(crate) fn take_as<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(Given { value, origin }) = self.given.remove(name) else { return Ok(None) };
        read(&value)
            .map(Some)
            .ok_or_else(|| Error::Setting(format!("{name} ({origin}) has a value that can't be read")))
    }

    /// A parameter with a fixed set of values.
    pub(crate) fn take_one_of<T: Copy>(
        &mut self,
        name: &'static str,
        values: &[(&str, T)],
    ) -> Result<Option<T>, Error> {
        let Some(Given { value, origin }) = self.given.remove(name) else { return Ok(None) };
        let found = values.iter().find(|(known, _)| *known == value).map(|(_, meaning)| *meaning);
        found.map(Some).ok_or_else(|| {
            let known: Vec<&str> = values.iter().map(|(known, _)| *known).collect();
            Error::Setting(format!(
                "{name} ({origin}) has a value that is not supported. It may be {}.",
                known.join(", ")
            ))
        })
    }

    /// A number.
    pub(crate) fn take_number<T: FromStr>(&mut self, name: &'static str) -> Result<Option<T>, Error> {
        self.take_as(name, |value| value.trim().parse().ok())
    }
}

/// A variable's value. One that is set to nothing is not set.
pub(crate) fn variable(
    environment: impl Fn(&str) -> Option<OsString>,
    name: &str,
) -> Result<Option<String>, Error> {
    let value = environment(name).filter(|value| !value.is_empty()).map(OsString::into_string).transpose();
    value.map_err(|_| Error::Setting(format!("{name} is not UTF-8")))
}

/// A path that a variable gives, of any bytes.
pub(crate) fn path(environment: impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    environment(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
    }

    fn error(url: &str, variables: &[(&str, &str)]) -> String {
        Parameters::read(Some(url), &[], with(variables)).err().unwrap_or_else(|| panic!("{url}")).to_string()
    }

    #[test]
    fn the_url_counts_before_a_service_before_variables_before_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services").display().to_string();
        std::fs::write(&file, "[s]\nhost=of-service\nport=2\nuser=of-service\ndbname=\n").unwrap();
        let variables = [
            ("PGSERVICEFILE", file.as_str()),
            ("PGSERVICE", "other"),
            ("PGHOST", "of-variable"),
            ("PGPORT", "3"),
            ("PGUSER", "of-variable"),
            ("PGDATABASE", "of-variable"),
            ("PGOPTIONS", ""),
        ];
        let defaults = [("host", "d"), ("dbname", "d"), ("options", "d")];
        let url = Some("postgresql://of-url?service=s&port=0&port=1");
        let mut read = Parameters::read(url, &defaults, with(&variables)).unwrap();
        let expected = ["of-url", "1", "of-service", "of-variable", "d"];
        for (name, expected) in ["host", "port", "user", "dbname", "options"].into_iter().zip(expected) {
            assert_eq!(read.take(name).as_deref(), Some(expected), "{name}");
        }
    }

    /// `gssencmode=require` connected in the clear, and `PGREQUIREAUTH` was passed over.
    #[test]
    fn protection_that_can_not_be_had_is_refused_wherever_it_is_asked_for() {
        for known in PARAMETERS {
            let Handling::Refused { unless, .. } = known.handling else { continue };
            let said = error(&format!("postgresql://?{}=asked", known.name), &[]);
            assert!(said.starts_with(known.name) && said.contains("(in the database URL)"), "{said}");
            assert!(!said.contains("asked"), "{said}");
            if let Some(variable) = known.variable {
                let said = error("postgresql://", &[(variable, "asked")]);
                assert!(said.starts_with(known.name) && said.contains(variable), "{said}");
            }
            for value in unless {
                let url = format!("postgresql://?{}={value}", known.name);
                assert!(Parameters::read(Some(&url), &[], |_| None).unwrap().ignored.is_empty(), "{url}");
            }
        }
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let variables = [("PGTZ", "UTC"), ("PGKRBSRVNAME", "x"), ("PGHOST", "h"), ("PGLOCALEDIR", "")];
        let url = "postgresql://?client_encoding=latin1&sslmode=prefer";
        let mut read = Parameters::read(Some(url), &[], with(&variables)).unwrap();
        let said: Vec<String> = read.take_ignored().iter().map(Ignored::to_string).collect();
        assert_eq!(
            said,
            [
                "PGTZ has no effect: times are exchanged in a form that it does not change",
                "client_encoding (in the database URL) has no effect: the encoding is always UTF-8",
                "krbsrvname (PGKRBSRVNAME) has no effect: GSSAPI is not supported",
            ]
        );
    }

    #[test]
    fn pgrequiressl_is_an_old_name_for_sslmode_require() {
        let sslmode = |variables: &[(&str, &str)]| {
            Parameters::read(None, &[("sslmode", "prefer")], with(variables)).unwrap().take("sslmode")
        };
        assert_eq!(sslmode(&[("PGREQUIRESSL", "1")]).as_deref(), Some("require"));
        assert_eq!(sslmode(&[("PGREQUIRESSL", "0")]).as_deref(), Some("prefer"));
        let both = [("PGREQUIRESSL", "1"), ("PGSSLMODE", "verify-full")];
        assert_eq!(sslmode(&both).as_deref(), Some("verify-full"));
    }

    #[test]
    fn a_variable_that_is_no_text_is_not_passed_over() {
        use std::os::unix::ffi::OsStringExt;
        let environment = |name: &str| (name == "PGSSLMODE").then(|| OsString::from_vec(vec![0xff]));
        let error = Parameters::read(None, &[], environment).err().unwrap().to_string();
        assert_eq!(error, "PGSSLMODE is not UTF-8");
    }

    #[test]
    fn a_value_that_can_not_be_read_is_not_shown() {
        let mut read = Parameters::read(Some("postgresql://?connect_timeout=secret"), &[], |_| None).unwrap();
        let said = read.take_number::<i64>("connect_timeout").unwrap_err().to_string();
        assert_eq!(said, "connect_timeout (in the database URL) has a value that can't be read");
        let mut read = Parameters::read(None, &[], with(&[("PGSSLMODE", "secret")])).unwrap();
        let said = read.take_one_of("sslmode", &[("disable", 0), ("require", 1)]).unwrap_err().to_string();
        let expected = "sslmode (PGSSLMODE) has a value that is not supported. It may be disable, require.";
        assert_eq!(said, expected);
    }
}
