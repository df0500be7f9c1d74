//! What the SDK reads from its environment and profiles.

use crate::error::{End, Error, Kind};
use aws_config::SdkConfig;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use std::panic;

/// The settings that environment and profiles give.
pub(super) async fn load(http: SharedHttpClient) -> Result<SdkConfig, Error> {
    if std::env::var_os("AWS_CA_BUNDLE").is_some_and(|file| !file.is_empty()) {
        tracing::warn!(
            "AWS_CA_BUNDLE is not read; certificates to trust are those of the system, or of the file that SSL_CERT_FILE names"
        );
    }
    let behavior = aws_sdk_sqs::config::BehaviorVersion::latest();
    let settings = aws_config::defaults(behavior).http_client(http).load();
    // The SDK panics where a setting has a value that it can't use. In a task of its own that is an error, and
    // the hook would print it.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let loaded = tokio::spawn(settings).await;
    panic::set_hook(hook);
    loaded.map_err(|failed| {
        let said = failed.try_into_panic().ok().and_then(|said| said.downcast::<String>().ok());
        Error::new(Kind::SetUp, Some(End::Queue), unusable(&said.unwrap_or_default()))
    })
}

/// Names the variable that the SDK complains of, and nothing else of what it says.
fn unusable(said: &str) -> String {
    let is_of_name = |character: char| character.is_ascii_uppercase() || character == '_';
    let names = said.split(|character| !is_of_name(character));
    match names.into_iter().find(|name| name.starts_with("AWS_")) {
        Some(name) => format!("{name} has a value that the AWS SDK can't use"),
        None => {
            "the AWS profile has a setting that the AWS SDK can't use, such as max_attempts or retry_mode"
                .to_owned()
        }
    }
}
