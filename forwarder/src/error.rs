//! Errors, sorted once where they arise: is it worth trying again, or is the set-up wrong?

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use sqs_query::WRONG_PROTOCOL;
use std::fmt::Write;
use tokio_postgres::error::SqlState;

/// Why the forwarder ends, or what it waits out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Worth trying again.
    #[error("{end} {what}")]
    Unavailable { end: End, what: String },
    /// PostgreSQL itself says no: for now, or because the set-up is wrong.
    #[error("the database refuses: {what}")]
    Refused { sqlstate: SqlState, what: String },
    /// The AWS credentials are missing or wrong: set-up at first, but those that expire come back.
    #[error("{what}")]
    Credentials { what: String },
    /// Trying again changes nothing: somebody has to set something right.
    #[error("{what}")]
    SetUp { what: String },
    /// No connection to the database.
    #[error(transparent)]
    Connection(#[from] pg_settings::Error),
    /// A task of the forwarder panicked.
    #[error(
        "a part of the forwarder failed: this is a bug. What it held comes again after the visibility time-out"
    )]
    Defect,
    /// No signal handler, no runtime.
    #[error("the system refuses what every process may do: {0}")]
    System(#[from] std::io::Error),
}

/// The two ends that messages are carried between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Queue,
    Database,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queue => "the queue",
            Self::Database => "the database",
        })
    }
}

impl Error {
    /// sysexits.h: 69 is EX_UNAVAILABLE, 70 is EX_SOFTWARE, 78 is EX_CONFIG.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Unavailable { .. } | Self::System(_) => 69,
            Self::Connection(error) if error.kind() == pg_settings::Kind::Transient => 69,
            Self::Defect => 70,
            Self::Refused { sqlstate, .. } if !database_set_up_is_wrong(sqlstate) => 69,
            _ => 78,
        }
    }

    /// Whose error it is.
    pub(crate) fn end(&self) -> End {
        match self {
            Self::Unavailable { end, .. } => *end,
            Self::Refused { .. } | Self::Connection(_) => End::Database,
            _ => End::Queue,
        }
    }

    /// Whether it may pass by itself while the forwarder waits, once it was running.
    pub(crate) fn is_transient(&self) -> bool {
        self.exit_code() == 69 || matches!(self, Self::Credentials { .. })
    }

    /// The class of SQLSTATE: 08, connection exception, where no server said any.
    pub(crate) fn sqlstate_class(&self) -> &str {
        match self {
            Self::Refused { sqlstate, .. } => sqlstate.code().get(..2).unwrap_or("08"),
            Self::Connection(error) => error.sqlstate().and_then(|code| code.code().get(..2)).unwrap_or("08"),
            _ => "08",
        }
    }

    /// The error, and what to do about it.
    pub(crate) fn with_cure(self, cure: &str) -> Self {
        match self {
            Self::SetUp { what } => Self::SetUp { what: format!("{}. {cure}", what.trim_end_matches('.')) },
            Self::Refused { sqlstate, what } if database_set_up_is_wrong(&sqlstate) => {
                let what = format!("{}. {cure}", what.trim_end_matches('.'));
                Self::Refused { sqlstate, what }
            }
            other => other,
        }
    }

    /// Sorts an error of SQS.
    pub(crate) fn of_queue<E, R>(error: &SdkError<E, R>, doing: &str) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
        R: std::fmt::Debug + 'static,
    {
        match error {
            SdkError::ServiceError(service) => {
                let code = service.err().code().unwrap_or("no error code");
                let text = one_line(service.err().message().unwrap_or("no message"));
                let what = format!("refuses {doing}: {code}: {text}");
                match queue_cure(code) {
                    Some(cure) if cure == CREDENTIALS => {
                        Self::Credentials { what: format!("the queue {what}. {cure}") }
                    }
                    Some(cure) => Self::SetUp { what: format!("the queue {what}. {cure}") },
                    None => Self::Unavailable { end: End::Queue, what },
                }
            }
            SdkError::ConstructionFailure(_) => Self::not_sent(error, doing),
            SdkError::DispatchFailure(failure) if failure.is_other() => Self::not_sent(error, doing),
            _ => Self::Unavailable {
                end: End::Queue,
                what: format!("can't be reached for {doing}: {}", causes(error)),
            },
        }
    }

    /// Sorts why a request never left: something is missing, or whoever gives credentials is out.
    fn not_sent(error: &(dyn std::error::Error + 'static), doing: &str) -> Self {
        let what = format!("{doing} could not be sent: {}", causes(error));
        let mut source = Some(error);
        while let Some(cause) = source {
            match cause.downcast_ref() {
                Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)) => {
                    return Self::Unavailable { end: End::Queue, what: format!("can't be asked: {what}") };
                }
                Some(_) => return Self::Credentials { what: format!("{what}. {CREDENTIALS}") },
                None => {}
            }
            // A connection that was lost with a request on it.
            if cause.is::<hyper::Error>() || cause.is::<std::io::Error>() {
                return Self::Unavailable { end: End::Queue, what: format!("can't be reached: {what}") };
            }
            source = cause.source();
        }
        Self::SetUp {
            what: format!("{what}. Check the AWS settings: credentials, AWS_REGION, AWS_ENDPOINT_URL."),
        }
    }

    /// Sorts an error of PostgreSQL or of the connection to it.
    pub(crate) fn of_database(error: &tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self::Unavailable {
                end: End::Database,
                what: format!("can't be reached: {}", causes(error)),
            };
        };
        // Message and hint only: a detail may hold values of a row.
        let mut what = format!("{} (SQLSTATE {})", db.message(), db.code().code());
        if let Some(hint) = db.hint() {
            let _ = write!(what, ". {hint}");
        }
        Self::Refused { sqlstate: db.code().clone(), what }
    }
}

const CREDENTIALS: &str = "Check the AWS credentials.";

/// What to do about an SQS error code that trying again doesn't mend.
fn queue_cure(code: &str) -> Option<&'static str> {
    // The JSON protocol says QueueDoesNotExist, the Query protocol NonExistentQueue with a prefix.
    let code = code.rsplit(['.', '#']).next().unwrap_or(code);
    match code {
        "QueueDoesNotExist" | "NonExistentQueue" => {
            Some("Check the queue's name or URL, the region and the account, or create the queue.")
        }
        "AccessDenied" | "AccessDeniedException" => Some(
            "Allow sqs:GetQueueUrl, sqs:GetQueueAttributes, sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility.",
        ),
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException" => Some(CREDENTIALS),
        WRONG_PROTOCOL => Some(
            "Set --sqs-protocol (FORWARDER_SQS_PROTOCOL) to auto, or to the protocol that this server speaks.",
        ),
        "KmsAccessDenied" | "KmsDisabled" | "KmsInvalidState" | "KmsNotFound" | "KmsOptInRequired" => {
            Some("Check the queue's KMS key, and allow kms:Decrypt.")
        }
        "InvalidAddress" | "InvalidParameterValue" => Some("Check the queue's URL."),
        _ => None,
    }
}

/// Classes 28 (who), 3D and 3F (which database and schema), 42 (what is there and who may use it) and
/// F0 (the keyring) are set-up; read-only servers, shutdowns, lacks of resources and lost connections
/// pass.
fn database_set_up_is_wrong(code: &SqlState) -> bool {
    matches!(code.code().get(..2), Some("28" | "3D" | "3F" | "42" | "F0" | "0A"))
}

/// What a server says, as part of a line of ours.
fn one_line(text: &str) -> String {
    const MOST: usize = 300;
    let shown = text.trim_end_matches('.').chars().take(MOST);
    shown.map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// An error and what caused it, in one line. Neither end puts a message's content into these.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}
