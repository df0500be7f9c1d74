//! What it means when a server does not take us, and what to do about it.

use crate::error::{Error, causes};
use crate::wire::Objection;
use rustls::{AlertDescription, CertificateError};
use std::error::Error as _;
use std::io::ErrorKind;
use tokio_postgres::error::SqlState;

/// Whether another way to connect, with TLS or without, may do better.
pub(crate) fn is_of_this_way(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
        || cause::<rustls::Error>(error).is_some()
}

/// The server has no TLS.
pub(crate) fn no_tls(server: &str) -> Error {
    Error::Mismatch {
        what: format!(
            "the database at {server} has no TLS, which sslmode asks for. Turn it on there (ssl = on), or use sslmode=prefer or disable."
        ),
        source: None,
    }
}

/// What an error of the TLS handshake means.
pub(crate) fn of_tls(error: std::io::Error, server: &str) -> Error {
    let text = error.to_string();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let what = match inner {
        Some(rustls::Error::InvalidCertificate(reason)) => format!(
            "the database at {server} shows a certificate that is not good: {text}. {}",
            certificate_hint(reason)
        ),
        Some(rustls::Error::AlertReceived(alert)) if is_about_us(*alert) => client_certificate(server, &text),
        Some(rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)) => format!(
            "the database at {server} has no common TLS version with us: {text}. Check ssl_min_protocol_version and ssl_max_protocol_version, here and there."
        ),
        _ => return unreachable(error, server),
    };
    Error::Mismatch { what, source: Some(error.into()) }
}

/// The network, or what is said on it before PostgreSQL's protocol, failed.
pub(crate) fn unreachable(error: std::io::Error, server: &str) -> Error {
    Error::Unavailable { what: format!("can't be reached at {server}: {error}"), source: Some(error.into()) }
}

/// What an error after that means, while the server lets us in.
pub(crate) fn of_start(
    error: tokio_postgres::Error,
    objection: Option<&Objection>,
    server: &str,
    password_from: &str,
) -> Error {
    if let Some(objection) = objection {
        return of_objection(objection, server, password_from);
    }
    if let Some(refused) = error.as_db_error() {
        let hint = match *refused.code() {
            SqlState::INVALID_PASSWORD => Some(format!("Check the password ({password_from}).")),
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Some(
                "Check the role's name, pg_hba.conf on the server, and sslmode: it may take this role with TLS alone, or with a certificate.".to_owned(),
            ),
            SqlState::INVALID_CATALOG_NAME => Some("Check the database's name, or create it.".to_owned()),
            _ => None,
        };
        // Message and hint only: a detail may hold values.
        let mut what =
            format!("at {server} refuses: {} (SQLSTATE {})", refused.message(), refused.code().code());
        for hint in refused.hint().into_iter().chain(hint.as_deref()) {
            what = format!("{}. {hint}", what.trim_end_matches('.'));
        }
        return Error::Refused { what, source: error };
    }
    let text = causes(&error);
    match cause::<rustls::Error>(&error) {
        // With TLS 1.3 the server looks at our certificate after the handshake.
        Some(rustls::Error::AlertReceived(alert)) if is_about_us(*alert) => {
            let what = client_certificate(server, &text);
            return Error::Mismatch { what, source: Some(error.into()) };
        }
        _ => {}
    }
    if is_lost(&error) {
        let what = format!("can't be reached at {server}: {text}");
        return Error::Unavailable { what, source: Some(error.into()) };
    }
    let what = format!(
        "authentication with the database at {server} failed: {text}. Check the role's password and channel_binding."
    );
    Error::Mismatch { what, source: Some(error.into()) }
}

/// What an objection means.
pub(crate) fn of_objection(objection: &Objection, server: &str, password_from: &str) -> Error {
    let what = match objection {
        Objection::Method(_) | Objection::NoAuthentication => format!(
            "the database at {server} {objection}. Check pg_hba.conf on the server, or require_auth (PGREQUIREAUTH)."
        ),
        Objection::NoPassword => format!(
            "the database at {server} {objection} ({password_from}). Give it in PGPASSWORD, or in a line of ~/.pgpass."
        ),
        Objection::TooLong(_)
        | Objection::TooMany
        | Objection::TooManySettings
        | Objection::UnknownType(_) => format!("the database at {server} {objection}"),
        Objection::NotPostgres => {
            format!(
                "the database at {server} {objection}. Check that host and port are a PostgreSQL server's."
            )
        }
    };
    Error::Mismatch { what, source: None }
}

/// The connection was lost; tokio-postgres puts what does not fit into its protocol into errors of
/// these kinds of I/O, too.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    let of_protocol = [ErrorKind::InvalidData, ErrorKind::InvalidInput, ErrorKind::Other];
    error.is_closed() || cause::<std::io::Error>(error).is_some_and(|io| !of_protocol.contains(&io.kind()))
}

fn client_certificate(server: &str, text: &str) -> String {
    format!(
        "the database at {server} does not take the client's certificate: {text}. Check sslcert and sslkey (PGSSLCERT, PGSSLKEY)."
    )
}

fn certificate_hint(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::UnknownIssuer => {
            "Name the certificate of whoever signed it in sslrootcert (PGSSLROOTCERT)."
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "Connect by a name that is in it, have the name put in it, or use sslmode=verify-ca."
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "Renew it there.",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "Check the clocks of both machines."
        }
        _ => "Make it anew there: of version 3, with a subjectAltName.",
    }
}

/// What a server answers to a certificate of ours that it doesn't like, or misses.
fn is_about_us(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}

/// What is of one type among the causes of an error. What an I/O error carries is no cause of it to
/// the standard library.
fn cause<T: std::error::Error + 'static>(error: &tokio_postgres::Error) -> Option<&T> {
    let mut cause = error.source();
    while let Some(found) = cause {
        if let Some(wanted) = found.downcast_ref() {
            return Some(wanted);
        }
        let carried = found.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match carried {
            Some(carried) => Some(carried as &(dyn std::error::Error + 'static)),
            None => found.source(),
        };
    }
    None
}
