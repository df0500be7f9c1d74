//! What a call that is not done is answered.

use super::xml::{document, escaped};

/// Why a call is refused.
pub(super) struct Refusal {
    pub(super) status: u16,
    code: String,
    message: String,
}

impl Refusal {
    /// The caller's mistake.
    pub(super) fn sender(code: &str, message: &str) -> Self {
        Self { status: 400, code: code.to_owned(), message: message.to_owned() }
    }

    /// The same, with a code of SQS's own.
    pub(super) fn sqs(code: &str, message: &str) -> Self {
        Self::sender(&format!("AWS.SimpleQueueService.{code}"), message)
    }

    /// As XML.
    pub(super) fn document(&self) -> String {
        let [code, message] = [&self.code, &self.message].map(|text| escaped(text));
        document(
            "ErrorResponse",
            &format!(
                "<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message><Detail/></Error><RequestId>1</RequestId>"
            ),
        )
    }
}
