//! What the SDK reads from its environment and profiles.

use crate::{Error, credentials, endpoint, http};
use aws_config::{BehaviorVersion, SdkConfig};
use std::panic;

/// The settings that environment and profiles give, with an HTTP client in them.
pub async fn load() -> Result<SdkConfig, Error> {
    endpoint::check()?;
    credentials::check()?;
    http::check()?;
    if std::env::var_os("AWS_CA_BUNDLE").is_some_and(|file| !file.is_empty()) {
        tracing::warn!(
            "AWS_CA_BUNDLE is not read; certificates to trust are those of the system, or of the file that SSL_CERT_FILE names"
        );
    }
    let settings = aws_config::defaults(BehaviorVersion::latest()).http_client(http::client()).load();
    // The SDK panics where a setting has a value that it can't use. In a task of its own that is an error, and
    // the hook would print it.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let loaded = tokio::spawn(settings).await;
    panic::set_hook(hook);
    loaded.map_err(|failed| {
        let said = failed.try_into_panic().ok().and_then(|said| said.downcast::<String>().ok());
        unusable(&said.unwrap_or_default())
    })
}

/// Names the variable that the SDK complains of, and nothing else of what it says.
fn unusable(said: &str) -> Error {
    let is_of_name = |character: char| character.is_ascii_uppercase() || character == '_';
    let mut names = said.split(|character| !is_of_name(character));
    let name = names.find(|name| name.starts_with("AWS_"));
    name.map_or(Error::Profile, |name| Error::Variable(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_named_and_nothing_else() {
        let said = "invalid value `secret` in `AWS_MAX_ATTEMPTS`: not a number";
        assert_eq!(unusable(said), Error::Variable("AWS_MAX_ATTEMPTS".to_owned()));
        assert_eq!(unusable("max_attempts: secret"), Error::Profile);
    }
}
