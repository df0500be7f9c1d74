//! The endpoints that the environment gives. The SDK passes over one that it can't read, asks AWS instead, and
//! logs what was given, which may hold a password.

use crate::Error;

/// The last one says where a container asks for its credentials.
const VARIABLES: [&str; 3] =
    ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];

/// Whether the variables that give an endpoint can be read.
pub(crate) fn check() -> Result<(), Error> {
    for name in VARIABLES {
        let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else { continue };
        let value = value.to_str().unwrap_or_default();
        let wrong = if value.contains('@') {
            "has an @, and so a user or a password in it, which are not used. Take them out."
        } else if !is_url(value) {
            "is no URL. It has to look like https://host or http://127.0.0.1:4566."
        } else {
            continue;
        };
        return Err(Error::Value { name, wrong });
    }
    Ok(())
}

/// Scheme, host and port of a URL. A name and a password before the host are left out.
#[must_use]
pub fn endpoint_of(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{scheme}://{}", authority.rsplit('@').next().unwrap_or_default())
}

fn is_url(value: &str) -> bool {
    value.parse::<hyper::Uri>().is_ok_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty())
    })
}
