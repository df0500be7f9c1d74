//! `require_auth`: the ways of authentication that the client agrees to (PostgreSQL manual, "Parameter Key
//! Words").

/// A way of authentication, as far as the protocol shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// The server asked for nothing: `trust`, a client certificate, `peer`.
    None,
    /// A password in the clear: `password`, and also `ldap`, `radius`, `pam`.
    Password,
    Md5,
    Gss,
    Sspi,
    /// SASL. Another mechanism than SCRAM is refused by tokio-postgres.
    Scram,
    /// One that the manual does not list any more.
    Other,
}

const NAMES: [(&str, Method); 6] = [
    ("password", Method::Password),
    ("md5", Method::Md5),
    ("gss", Method::Gss),
    ("sspi", Method::Sspi),
    ("scram-sha-256", Method::Scram),
    ("none", Method::None),
];

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = NAMES.iter().find(|(_, method)| method == self).map(|(name, _)| *name);
        f.write_str(name.unwrap_or("an unknown method"))
    }
}

/// The methods that are allowed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum RequireAuth {
    /// Each.
    #[default]
    Any,
    /// These alone.
    Of(Vec<Method>),
    /// All but these.
    AllBut(Vec<Method>),
}

impl RequireAuth {
    /// `md5,scram-sha-256` or `!password,!md5`. The two forms can't be mixed.
    pub(crate) fn read(list: &str) -> Option<Self> {
        let names: Vec<&str> = list.split(',').map(str::trim).collect();
        let negated = names.iter().all(|name| name.starts_with('!'));
        let method = |name: &&str| {
            let name = if negated { &name[1..] } else { name };
            NAMES.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
        };
        let methods = names.iter().map(method).collect::<Option<Vec<_>>>()?;
        Some(if negated { Self::AllBut(methods) } else { Self::Of(methods) })
    }

    pub(crate) fn allows(&self, method: Method) -> bool {
        match self {
            Self::Any => true,
            Self::Of(methods) => methods.contains(&method),
            Self::AllBut(methods) => !methods.contains(&method),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_allow_or_forbid() {
        let allowed = |list| {
            let all = NAMES.map(|(_, method)| method);
            let list = RequireAuth::read(list).unwrap();
            all.into_iter().filter(|method| list.allows(*method)).collect::<Vec<_>>()
        };
        assert_eq!(allowed("scram-sha-256"), [Method::Scram]);
        assert_eq!(allowed("none, md5"), [Method::Md5, Method::None]);
        assert_eq!(allowed("!password,!md5,!none"), [Method::Gss, Method::Sspi, Method::Scram]);
        for wrong in ["", "scram", "md5,!none", "!md5,none", "md5,", "!", "oauth"] {
            assert_eq!(RequireAuth::read(wrong), None, "{wrong}");
        }
        assert!(RequireAuth::Any.allows(Method::Other));
    }
}
