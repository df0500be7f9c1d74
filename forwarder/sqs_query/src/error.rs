//! Why a request or an answer could not be translated.

/// What is wrong with a request or an answer. The SDK reports it as the cause of its own error, where
/// [`Error::of`] finds it. Holds nothing of an answer, which may be a message's body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A call that is not covered.
    #[error("this call can't be put into SQS's Query protocol: {0}")]
    Request(String),
    /// No XML, or only the beginning of it.
    #[error("the answer is no XML, or cut short")]
    Malformed,
    /// More bytes than such an answer can have, which are these.
    #[error("the answer is larger than {} MiB", .0 >> 20)]
    TooLarge(usize),
    /// More values than ten messages can have.
    #[error("the answer has more than {} values", crate::limits::VALUES)]
    TooManyValues,
    /// Nested deeper than an answer of SQS.
    #[error("the answer is nested more than {} deep", crate::limits::DEPTH)]
    TooDeep,
    /// It began and did not come to its end.
    #[error("the answer did not come to its end within {} s", crate::limits::TIME.as_secs())]
    TooSlow,
}

impl Error {
    /// The error of this kind among the causes of an error of the SDK.
    pub fn of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(found) = cause {
            if let Some(ours) = found.downcast_ref() {
                return Some(ours);
            }
            cause = found.source();
        }
        None
    }
}
