//! Requests: the SDK's AWS JSON, rewritten as a form of the Query protocol before it is signed.
//!
//! Shapes: Amazon SQS API Reference, API version 2012-11-05, the examples of each action.

use crate::error::Error;
use crate::{Negotiation, Protocol};
use aws_sdk_sqs::config::http::HttpRequest;
use aws_sdk_sqs::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_sqs::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_types::body::SdkBody;
use serde_json::Value;
use std::sync::Arc;
use url::Url;
use url::form_urlencoded::Serializer;

pub(crate) const FORM: &str = "application/x-www-form-urlencoded";
const TARGET: &str = "x-amz-target";

/// Rewrites requests while the Query protocol is spoken.
#[derive(Debug)]
pub(crate) struct Rewrite(pub(super) Arc<Negotiation>);

impl Intercept for Rewrite {
    fn name(&self) -> &'static str {
        "QueryProtocol"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        match self.0.protocol() {
            Protocol::Json => Ok(()),
            Protocol::Query => Ok(rewrite(context.request_mut())?),
        }
    }
}

/// A mistake of ours, for the SDK's requests are known.
fn unknown(what: impl Into<String>) -> Error {
    Error::Request(what.into())
}

fn rewrite(request: &mut HttpRequest) -> Result<(), Error> {
    let action = request.headers().get(TARGET).and_then(|target| target.strip_prefix("AmazonSQS."));
    let action = action.ok_or_else(|| unknown("no action"))?.to_owned();
    let body = request.body().bytes().ok_or_else(|| unknown("no body"))?;
    let body: Value = serde_json::from_slice(body).map_err(|_| unknown("no JSON"))?;
    let form = form(&action, &body)?;
    if let Some(queue_url) = body["QueueUrl"].as_str() {
        let uri = at_queue(request.uri(), queue_url);
        let set = uri.map(|uri| request.set_uri(uri));
        set.transpose().map_err(|_| unknown("the queue's URL"))?;
    }
    let headers = request.headers_mut();
    headers.remove(TARGET);
    headers.remove("x-amzn-query-mode"); // asks a JSON server for the Query protocol's error codes
    headers.insert("content-type", FORM);
    headers.insert("content-length", form.len().to_string());
    *request.body_mut() = SdkBody::from(form);
    Ok(())
}

/// The endpoint with the queue's path: the host in a queue's URL need not resolve, but its path says
/// which queue is meant, and old servers look there.
fn at_queue(endpoint: &str, queue_url: &str) -> Option<String> {
    let queue = Url::parse(queue_url).ok()?;
    let mut endpoint = Url::parse(endpoint).ok()?;
    let base = endpoint.path().trim_end_matches('/').to_owned();
    let path = match queue.path().strip_prefix(&base) {
        Some(rest) if rest.starts_with('/') => queue.path().to_owned(),
        _ => format!("{base}{}", queue.path()),
    };
    endpoint.set_path(&path);
    Some(endpoint.into())
}

/// A list becomes numbered fields, each of its entries' members a field of its own.
fn form(action: &str, body: &Value) -> Result<String, Error> {
    let members = body.as_object().ok_or_else(|| unknown("no object"))?;
    let mut form = Serializer::new(String::new());
    form.append_pair("Action", action).append_pair("Version", "2012-11-05");
    for (name, value) in members {
        let Value::Array(items) = value else {
            form.append_pair(name, &text(name, value)?);
            continue;
        };
        let field = match name.as_str() {
            "Entries" => format!("{action}RequestEntry"),
            // The newer name for the same; old servers know the older.
            "AttributeNames" | "MessageSystemAttributeNames" => "AttributeName".to_owned(),
            _ => return Err(unknown(name)),
        };
        for (number, item) in (1..).zip(items) {
            let field = format!("{field}.{number}");
            match item {
                Value::Object(entry) => {
                    for (name, value) in entry {
                        form.append_pair(&format!("{field}.{name}"), &text(name, value)?);
                    }
                }
                _ => {
                    form.append_pair(&field, &text(name, item)?);
                }
            }
        }
    }
    Ok(form.finish())
}

fn text(name: &str, value: &Value) -> Result<String, Error> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(yes) => Ok(yes.to_string()),
        _ => Err(unknown(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The fields of a form in their order, and only after the action and the version.
    fn fields(action: &str, body: &Value) -> Vec<(String, String)> {
        let form = form(action, body).unwrap();
        let mut fields: Vec<_> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        let start: Vec<_> = fields.drain(..2).collect();
        assert_eq!(start[0], ("Action".to_owned(), action.to_owned()));
        assert_eq!(start[1], ("Version".to_owned(), "2012-11-05".to_owned()));
        fields
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    const URL: &str = "http://queue.invalid/000000000000/q";

    #[test]
    fn every_call_in_the_documented_form() {
        let body = json!({ "QueueName": "login queue&+" });
        assert_eq!(fields("GetQueueUrl", &body), pairs([("QueueName", "login queue&+")]));

        let body = json!({ "QueueUrl": URL, "AttributeNames": ["A", "B"] });
        let expected = pairs([("AttributeName.1", "A"), ("AttributeName.2", "B"), ("QueueUrl", URL)]);
        assert_eq!(fields("GetQueueAttributes", &body), expected);

        let body = json!({
            "QueueUrl": URL, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 20, "VisibilityTimeout": 60,
            "MessageSystemAttributeNames": ["All"],
        });
        let expected = pairs([
            ("MaxNumberOfMessages", "10"),
            ("AttributeName.1", "All"),
            ("QueueUrl", URL),
            ("VisibilityTimeout", "60"),
            ("WaitTimeSeconds", "20"),
        ]);
        assert_eq!(fields("ReceiveMessage", &body), expected);

        let entries =
            [json!({ "Id": "0", "ReceiptHandle": "a+/=" }), json!({ "Id": "1", "ReceiptHandle": "b" })];
        let body = json!({ "QueueUrl": URL, "Entries": entries });
        let expected = pairs([
            ("DeleteMessageBatchRequestEntry.1.Id", "0"),
            ("DeleteMessageBatchRequestEntry.1.ReceiptHandle", "a+/="),
            ("DeleteMessageBatchRequestEntry.2.Id", "1"),
            ("DeleteMessageBatchRequestEntry.2.ReceiptHandle", "b"),
            ("QueueUrl", URL),
        ]);
        assert_eq!(fields("DeleteMessageBatch", &body), expected);

        let entries = [json!({ "Id": "0", "ReceiptHandle": "a", "VisibilityTimeout": 0 })];
        let body = json!({ "QueueUrl": URL, "Entries": entries });
        let expected = pairs([
            ("ChangeMessageVisibilityBatchRequestEntry.1.Id", "0"),
            ("ChangeMessageVisibilityBatchRequestEntry.1.ReceiptHandle", "a"),
            ("ChangeMessageVisibilityBatchRequestEntry.1.VisibilityTimeout", "0"),
            ("QueueUrl", URL),
        ]);
        assert_eq!(fields("ChangeMessageVisibilityBatch", &body), expected);
    }

    #[test]
    fn what_has_no_form_is_named() {
        for body in [json!({ "Tags": { "a": "b" } }), json!({ "Tags": ["a"] }), json!({ "Tags": null })] {
            assert_eq!(form("CreateQueue", &body), Err(unknown("Tags")));
        }
    }

    #[test]
    fn a_call_goes_to_the_endpoint_and_there_to_the_queue() {
        for (endpoint, queue, expected) in [
            ("http://127.0.0.1:4566/", "http://localhost:4576/queue/q", "http://127.0.0.1:4566/queue/q"),
            (
                "https://a.example/",
                "http://b.invalid/000000000000/q.fifo",
                "https://a.example/000000000000/q.fifo",
            ),
            ("http://proxy/sqs/", "http://h/000000000000/q", "http://proxy/sqs/000000000000/q"),
            ("http://proxy/sqs", "http://proxy/sqs/000000000000/q", "http://proxy/sqs/000000000000/q"),
            ("http://proxy/sqs", "http://h/sqs-queue", "http://proxy/sqs/sqs-queue"),
        ] {
            assert_eq!(at_queue(endpoint, queue).as_deref(), Some(expected));
        }
        assert_eq!(at_queue("http://127.0.0.1/", "login-queue"), None);
    }
}
