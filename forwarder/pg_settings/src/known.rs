//! Every connection parameter and variable of libpq, and what becomes of each here (PostgreSQL 18 manual,
//! "Parameter Key Words" and "Environment Variables").
//!
//! Whatever asks for protection is honoured or refused, never passed over, whether it is a parameter of
//! the URL, a line of a service file or a variable. What does no harm when it is passed over is reported
//! by [`Settings::ignored`](crate::Settings::ignored).

/// What becomes of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Handling {
    /// It has the effect that the manual describes.
    Honoured,
    /// It has no effect, for this reason.
    Ignored(&'static str),
    /// It is an error, but for values that ask for nothing.
    Refused {
        /// The values that ask for nothing.
        unless: &'static [&'static str],
        /// What can't be done.
        why: &'static str,
    },
}

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) name: &'static str,
    /// The environment variable that gives the parameter's default.
    pub(crate) variable: Option<&'static str>,
    pub(crate) handling: Handling,
}

const fn honoured(name: &'static str, variable: &'static str) -> Known {
    Known { name, variable: variable_of(variable), handling: Handling::Honoured }
}

const fn ignored(name: &'static str, variable: &'static str, why: &'static str) -> Known {
    Known { name, variable: variable_of(variable), handling: Handling::Ignored(why) }
}

const fn refused(
    name: &'static str,
    variable: &'static str,
    unless: &'static [&'static str],
    why: &'static str,
) -> Known {
    Known { name, variable: variable_of(variable), handling: Handling::Refused { unless, why } }
}

const fn variable_of(name: &'static str) -> Option<&'static str> {
    if name.is_empty() { None } else { Some(name) }
}

const NO_GSS: &str = "GSSAPI is not supported";
const NO_OAUTH: &str = "authentication by OAuth is not supported";
const NO_CRL: &str = "certificate revocation lists are not supported";
const SCRAM_KEYS: &str = "only a password can be used for SCRAM authentication";

/// All parameters, in the manual's order; those without a variable have an empty one.
pub(crate) const PARAMETERS: &[Known] = &[
    honoured("host", "PGHOST"),
    honoured("hostaddr", "PGHOSTADDR"),
    honoured("port", "PGPORT"),
    honoured("dbname", "PGDATABASE"),
    honoured("user", "PGUSER"),
    honoured("password", "PGPASSWORD"),
    honoured("passfile", "PGPASSFILE"),
    honoured("require_auth", "PGREQUIREAUTH"),
    honoured("channel_binding", "PGCHANNELBINDING"),
    honoured("connect_timeout", "PGCONNECT_TIMEOUT"),
    ignored("client_encoding", "PGCLIENTENCODING", "the encoding is always UTF-8"),
    honoured("options", "PGOPTIONS"),
    honoured("application_name", "PGAPPNAME"),
    honoured("fallback_application_name", ""),
    honoured("keepalives", ""),
    honoured("keepalives_idle", ""),
    honoured("keepalives_interval", ""),
    honoured("keepalives_count", ""),
    honoured("tcp_user_timeout", ""),
    refused("replication", "", &["false", "off", "no", "0"], "replication connections are not supported"),
    refused("gssencmode", "PGGSSENCMODE", &["disable", "prefer"], NO_GSS),
    honoured("sslmode", "PGSSLMODE"),
    honoured("sslnegotiation", "PGSSLNEGOTIATION"),
    ignored("sslcompression", "PGSSLCOMPRESSION", "TLS compression is insecure, and PostgreSQL has none"),
    honoured("sslcert", "PGSSLCERT"),
    honoured("sslkey", "PGSSLKEY"),
    ignored("sslkeylogfile", "", "keys of TLS connections are never logged"),
    refused("sslpassword", "", &[], "keys with a passphrase are not supported"),
    honoured("sslcertmode", "PGSSLCERTMODE"),
    honoured("sslrootcert", "PGSSLROOTCERT"),
    refused("sslcrl", "PGSSLCRL", &[], NO_CRL),
    refused("sslcrldir", "PGSSLCRLDIR", &[], NO_CRL),
    honoured("sslsni", "PGSSLSNI"),
    refused("requirepeer", "PGREQUIREPEER", &[], "the owner of a socket's server is not looked at"),
    honoured("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    honoured("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    refused("min_protocol_version", "PGMINPROTOCOLVERSION", &["3.0"], "protocol 3.0 is the only one known"),
    ignored("max_protocol_version", "PGMAXPROTOCOLVERSION", "protocol 3.0 is always used"),
    ignored("krbsrvname", "PGKRBSRVNAME", NO_GSS),
    ignored("gsslib", "PGGSSLIB", NO_GSS),
    ignored("gssdelegation", "PGGSSDELEGATION", NO_GSS),
    refused("scram_client_key", "", &[], SCRAM_KEYS),
    refused("scram_server_key", "", &[], SCRAM_KEYS),
    honoured("service", "PGSERVICE"),
    honoured("servicefile", "PGSERVICEFILE"),
    honoured("target_session_attrs", "PGTARGETSESSIONATTRS"),
    honoured("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    ignored("oauth_issuer", "", NO_OAUTH),
    ignored("oauth_client_id", "", NO_OAUTH),
    ignored("oauth_client_secret", "", NO_OAUTH),
    ignored("oauth_scope", "", NO_OAUTH),
];

/// Variables that have no parameter and no effect here. `PGSYSCONFDIR` ([`crate::service`]) and
/// `PGREQUIRESSL` ([`crate::parameters`]) have one.
pub(crate) const IGNORED_VARIABLES: &[(&str, &str)] = &[
    ("PGDATESTYLE", "dates are exchanged in a form that it does not change"),
    ("PGTZ", "times are exchanged in a form that it does not change"),
    ("PGGEQO", "give it in PGOPTIONS"),
    ("PGLOCALEDIR", "messages are in English"),
    ("PGOAUTHDEBUG", NO_OAUTH),
];

/// The parameter of this name.
pub(crate) fn find(name: &str) -> Option<&'static Known> {
    PARAMETERS.iter().find(|known| known.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list in the manual of version 18, without the obsolete `requiressl`.
    const MANUAL: &str = "host hostaddr port dbname user password passfile require_auth channel_binding
        connect_timeout client_encoding options application_name fallback_application_name keepalives
        keepalives_idle keepalives_interval keepalives_count tcp_user_timeout replication gssencmode sslmode
        sslnegotiation sslcompression sslcert sslkey sslkeylogfile sslpassword sslcertmode sslrootcert sslcrl
        sslcrldir sslsni requirepeer ssl_min_protocol_version ssl_max_protocol_version min_protocol_version
        max_protocol_version krbsrvname gsslib gssdelegation scram_client_key scram_server_key service
        servicefile target_session_attrs load_balance_hosts oauth_issuer oauth_client_id oauth_client_secret
        oauth_scope";

    #[test]
    fn every_parameter_of_the_manual_is_known_once() {
        let names: Vec<&str> = PARAMETERS.iter().map(|known| known.name).collect();
        assert_eq!(names, MANUAL.split_whitespace().collect::<Vec<_>>());
    }
}
