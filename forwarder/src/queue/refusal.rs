//! What an error of the SDK means: its kind, by the error code of SQS or by the type of its cause.

use crate::error::{End, Error, Kind, with_causes};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use sqs_query::WRONG_PROTOCOL;

const CREDENTIALS: &str = "Check the AWS credentials.";
const SETTINGS: &str =
    "Check the AWS settings: credentials, AWS_REGION, and AWS_ENDPOINT_URL, which looks like https://host.";

/// Gives an error of a call its kind.
pub(super) fn sort<E, R>(error: SdkError<E, R>, call: &str) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let sorted = match &error {
        SdkError::ServiceError(service) => refused(
            service.err().code().unwrap_or("no error code"),
            service.err().message().unwrap_or("no message"),
            call,
        ),
        _ if let Some(wrong) = sqs_query::Error::of(&error) => not_translated(wrong, call),
        SdkError::ConstructionFailure(_) => not_sent(&error, call),
        SdkError::DispatchFailure(failure) if failure.is_other() => not_sent(&error, call),
        _ => Error::transient(
            End::Queue,
            format!("the queue can't be reached for {call}: {}", with_causes(&error)),
        ),
    };
    sorted.caused_by(error)
}

/// SQS answered with an error code.
fn refused(code: &str, text: &str, call: &str) -> Error {
    let text = format!("the queue refuses {call}: {code}: {}", one_line(text));
    let sorted = |kind| Error::new(kind, Some(End::Queue), text);
    // The JSON protocol says QueueDoesNotExist, the Query protocol NonExistentQueue with a prefix.
    match code.rsplit(['.', '#']).next().unwrap_or(code) {
        "QueueDoesNotExist" | "NonExistentQueue" => sorted(Kind::SetUp)
            .with_hint("Check the queue's name or URL, the region and the account, or create the queue."),
        "AccessDenied" | "AccessDeniedException" => sorted(Kind::SetUp).with_hint(
            "Allow sqs:GetQueueUrl, sqs:GetQueueAttributes, sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility.",
        ),
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException" => sorted(Kind::Credentials).with_hint(CREDENTIALS),
        WRONG_PROTOCOL => sorted(Kind::SetUp).with_hint(
            "Set --sqs-protocol (FORWARDER_SQS_PROTOCOL) to auto, or to the protocol that this server speaks.",
        ),
        "KmsAccessDenied" | "KmsDisabled" | "KmsInvalidState" | "KmsNotFound" | "KmsOptInRequired" => {
            sorted(Kind::SetUp).with_hint("Check the queue's KMS key, and allow kms:Decrypt.")
        }
        "InvalidAddress" | "InvalidParameterValue" => {
            sorted(Kind::SetUp).with_hint("Check the queue's URL.")
        }
        _ => sorted(Kind::Transient),
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
    let text = format!("{call} could not be sent: {}", with_causes(error));
    let mut source = Some(error);
    while let Some(cause) = source {
        match cause.downcast_ref() {
            Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)) => {
                return Error::transient(End::Queue, format!("the credentials can't be had: {text}"));
            }
            Some(_) => return Error::new(Kind::Credentials, Some(End::Queue), text).with_hint(CREDENTIALS),
            None => {}
        }
        // The connection was lost with a request on it.
        if cause.is::<hyper::Error>() || cause.is::<std::io::Error>() {
            return Error::transient(End::Queue, format!("the queue can't be reached: {text}"));
        }
        source = cause.source();
    }
    // What is around the innermost cause shows the whole request, and an endpoint's user and password.
    let text = format!("{call} could not be sent: {}", innermost(error));
    Error::new(Kind::SetUp, Some(End::Queue), text).with_hint(SETTINGS)
}

fn innermost<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}

/// A server's text as part of a line.
fn one_line(text: &str) -> String {
    const MOST: usize = 300;
    let shown = text.trim_end_matches('.').chars().take(MOST);
    shown.map(|character| if character.is_control() { ' ' } else { character }).collect()
}
