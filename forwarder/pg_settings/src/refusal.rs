//! What it means when a server does not take us, and what to do about it.

use crate::error::{Error, causes};
use rustls::{AlertDescription, CertificateError};
use std::error::Error as _;
use tokio_postgres::error::SqlState;

/// Whether another way to connect, with TLS or without, may do better.
pub(crate) fn is_of_this_way(error: &tokio_postgres::Error) -> bool {
    is_of_tls(error) || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

/// What an error of connecting means.
pub(crate) fn sort(error: tokio_postgres::Error, server: &str, password_from: &str) -> Error {
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
        let mut what = format!("{} (SQLSTATE {})", refused.message(), refused.code().code());
        for hint in refused.hint().into_iter().chain(hint.as_deref()) {
            what = format!("{}. {hint}", what.trim_end_matches('.'));
        }
        return Error::Refused { what, source: error };
    }
    let text = causes(&error);
    let mismatch = match cause::<rustls::Error>(&error) {
        Some(rustls::Error::InvalidCertificate(reason)) => Some(format!(
            "the database at {server} shows a certificate that is not good: {text}. {}",
            certificate_hint(reason)
        )),
        Some(rustls::Error::AlertReceived(alert)) if is_about_us(*alert) => Some(format!(
            "the database at {server} does not take the client's certificate: {text}. Check sslcert and sslkey (PGSSLCERT, PGSSLKEY)."
        )),
        _ if text.contains("server does not support TLS") => Some(format!(
            "the database at {server} has no TLS, which sslmode asks for. Turn it on there (ssl = on), or use sslmode=prefer or disable."
        )),
        _ if text.contains("password missing") => Some(format!(
            "the database at {server} asks for a password ({password_from}). Give it in PGPASSWORD, or in a line of ~/.pgpass."
        )),
        _ if text.starts_with("authentication error") => Some(format!(
            "authentication with the database at {server} failed: {text}. Check the role's password and channel_binding."
        )),
        _ => None,
    };
    if let Some(what) = mismatch {
        return Error::Mismatch { what, source: error };
    }
    let what = match text.contains("database does not allow writes") {
        true => format!("at {server} is read-only: a standby, or on its way to become a primary"),
        false => format!("can't be reached at {server}: {text}"),
    };
    Error::Unavailable { what, source: Some(error) }
}

/// TLS itself failed, or there is none.
fn is_of_tls(error: &tokio_postgres::Error) -> bool {
    error.to_string().contains("TLS handshake") || cause::<rustls::Error>(error).is_some()
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
