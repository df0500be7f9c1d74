//! What an error of the SDK means: its kind, by the error code of SQS or by the type of its cause.

use super::gate::Endpoint;
use crate::error::{End, Error, Kind};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::operation::get_queue_attributes::GetQueueAttributesError;
use aws_sdk_sqs::operation::get_queue_url::GetQueueUrlError;
use aws_sdk_sqs::operation::receive_message::ReceiveMessageError;
use safe_output::causes;
use sqs_query::WRONG_PROTOCOL;

const CREDENTIALS: &str = "Check the AWS credentials.";
const CREDENTIAL_SETTINGS: &str =
    "Check the AWS profile, AWS_CONTAINER_CREDENTIALS_FULL_URI and AWS_CONTAINER_AUTHORIZATION_TOKEN.";
/// A server's text is shown up to so many characters.
const MOST_SHOWN: usize = 300;
const SETTINGS: &str =
    "Check the AWS settings: credentials, AWS_REGION, and AWS_ENDPOINT_URL, which looks like https://host.";

/// Gives an error of a call its kind. The endpoint is the one that was asked, if it is known.
pub(super) fn classify<E, R>(error: SdkError<E, R>, call: &str, endpoint: &Endpoint) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let call = match endpoint.get() {
        None => call.to_owned(),
        Some(endpoint) => format!("{call} at {endpoint}"),
    };
    let classified = match &error {
        SdkError::ServiceError(service) => refused(
            service.err().code().unwrap_or("no error code"),
            service.err().message().unwrap_or("no message"),
            &call,
        ),
        _ if let Some(wrong) = sqs_query::Error::of(&error) => not_translated(wrong, &call),
        SdkError::ConstructionFailure(_) => not_sent(&error, &call),
        SdkError::DispatchFailure(failure) if failure.is_other() => not_sent(&error, &call),
        _ => unreachable(&error, &call),
    };
    classified.caused_by(error)
}

/// Whether an error is the queue's answer to the calls that open it, so that it took the credentials.
pub(crate) fn is_answered(error: &Error) -> bool {
    fn is_service_error<E: std::error::Error + 'static>(source: &(dyn std::error::Error + 'static)) -> bool {
        source.downcast_ref::<SdkError<E>>().is_some_and(|error| error.as_service_error().is_some())
    }
    std::error::Error::source(error).is_some_and(|source| {
        is_service_error::<GetQueueUrlError>(source) || is_service_error::<GetQueueAttributesError>(source)
    })
}

/// Whether the queue has as many messages in flight as SQS allows, for all its consumers together.
pub(crate) fn is_over_limit(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let refused =
        source.and_then(|source| source.downcast_ref::<SdkError<ReceiveMessageError>>()?.as_service_error());
    refused.is_some_and(ReceiveMessageError::is_over_limit)
}

/// No answer, or half of one.
fn unreachable(error: &(dyn std::error::Error + 'static), call: &str) -> Error {
    Error::transient(End::Queue, format!("the queue can't be reached for {call}: {}", last_causes(error, 2)))
}

/// SQS answered with an error code.
fn refused(code: &str, text: &str, call: &str) -> Error {
    let text: String = text.trim_end_matches('.').chars().take(MOST_SHOWN).collect();
    let text = format!("the queue refuses {call}: {code}: {text}");
    let of_kind = |kind| Error::new(kind, Some(End::Queue), text);
    // The JSON protocol says QueueDoesNotExist, the Query protocol NonExistentQueue with a prefix.
    match code.rsplit(['.', '#']).next().unwrap_or(code) {
        "QueueDoesNotExist" | "NonExistentQueue" => of_kind(Kind::SetUp)
            .with_hint("Check the queue's name or URL, the region and the account, or create the queue."),
        "AccessDenied" | "AccessDeniedException" => of_kind(Kind::SetUp).with_hint(
            "Allow sqs:GetQueueUrl, sqs:GetQueueAttributes, sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility.",
        ),
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException" => of_kind(Kind::Credentials).with_hint(CREDENTIALS),
        WRONG_PROTOCOL => of_kind(Kind::SetUp).with_hint(
            "Set --sqs-protocol (FORWARDER_SQS_PROTOCOL) to auto, or to the protocol that this server speaks.",
        ),
        "KmsAccessDenied" | "KmsDisabled" | "KmsInvalidState" | "KmsNotFound" | "KmsOptInRequired" => {
            of_kind(Kind::SetUp).with_hint("Check the queue's KMS key, and allow kms:Decrypt.")
        }
        "InvalidAddress" | "InvalidParameterValue" => {
            of_kind(Kind::SetUp).with_hint("Check the queue's URL.")
        }
        _ => of_kind(Kind::Transient),
    }
}

/// The answer can't be used, or the call is none that the Query protocol can carry.
fn not_translated(wrong: &sqs_query::Error, call: &str) -> Error {
    match wrong {
        sqs_query::Error::Request(_) => {
            Error::new(Kind::Defect, Some(End::Queue), format!("{call}: {wrong}"))
        }
        _ => Error::transient(End::Queue, format!("the queue's answer to {call} can't be used: {wrong}")),
    }
}

/// The request was not sent: a setting is missing, or no credentials could be had.
fn not_sent(error: &(dyn std::error::Error + 'static), call: &str) -> Error {
    let last = last_causes(error, 1);
    // What a program says that was to give credentials may hold a secret, and is the end of the SDK's text.
    let shown = last.split(" Stderr: ").next().unwrap_or_default();
    let text = format!("{call} could not be sent: {shown}");
    let mut source = Some(error);
    while let Some(cause) = source {
        match cause.downcast_ref() {
            Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)) => {
                return Error::transient(End::Queue, format!("the credentials can't be had: {text}"));
            }
            // The SDK quotes the setting, unless it says what caused the error in its turn.
            Some(CredentialsError::InvalidConfiguration(_))
                if cause.source().is_none_or(|quoted| quoted.source().is_none()) =>
            {
                let text = format!("{call} could not be sent: a setting for credentials can't be used");
                return Error::new(Kind::Credentials, Some(End::Queue), text).with_hint(CREDENTIAL_SETTINGS);
            }
            Some(_) => {
                let profile = std::env::var("AWS_PROFILE").ok().filter(|profile| !profile.is_empty());
                let hint = profile.map_or(CREDENTIALS.to_owned(), |profile| {
                    format!("{CREDENTIALS} AWS_PROFILE names the profile {profile}: is it there?")
                });
                return Error::new(Kind::Credentials, Some(End::Queue), text).with_hint(&hint);
            }
            None => {}
        }
        // The connection was lost with a request on it.
        if cause.is::<hyper::Error>() || cause.is::<std::io::Error>() {
            return unreachable(error, call);
        }
        source = cause.source();
    }
    Error::new(Kind::SetUp, Some(End::Queue), text).with_hint(SETTINGS)
}

/// What lies at the bottom of an error, in one line. Further up the SDK shows whole requests.
fn last_causes(error: &(dyn std::error::Error + 'static), most: usize) -> String {
    let causes = causes(error);
    let last = causes[causes.len().saturating_sub(most)..].join(": ");
    last.split_whitespace().collect::<Vec<_>>().join(" ")
}
