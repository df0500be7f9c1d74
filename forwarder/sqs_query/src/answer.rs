//! Answers: the Query protocol's XML, as the AWS JSON protocol would have put it.
//!
//! Shapes: Amazon SQS API Reference, API version 2012-11-05, the examples of each action, and "Making
//! Query API requests", "Error responses".

use crate::body::stand_in;
use crate::error::Error;
use crate::xml::Element;
use serde_json::{Map, Value};

/// What a Query server answered.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// The action's result, as JSON.
    Result(Value),
    /// A refusal.
    Error(Refusal),
}

/// Why a server refuses.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal {
    /// Such as `AWS.SimpleQueueService.NonExistentQueue`.
    pub(crate) code: String,
    /// For people.
    pub(crate) message: String,
    /// `Sender` or `Receiver`: whose fault it is.
    pub(crate) fault: String,
}

impl Refusal {
    /// The body of an AWS JSON answer that says the same.
    pub(crate) fn json(&self) -> Value {
        serde_json::json!({ "__type": self.code, "message": self.message })
    }
}

/// Reads an answer. `None` if it is XML, but no answer of SQS.
pub(crate) fn read(document: &[u8]) -> Result<Option<Answer>, Error> {
    let root = Element::parse(document)?;
    if root.name == "ErrorResponse" {
        return Ok(root.child("Error").map(|error| Answer::Error(refusal(error))));
    }
    let Some(action) = root.name.strip_suffix("Response") else { return Ok(None) };
    let result_name = format!("{action}Result");
    let result = root.children.into_iter().find(|child| child.name == result_name);
    // An action without a result, such as DeleteMessage, has metadata alone.
    Ok(Some(Answer::Result(result.map_or_else(|| Value::Object(Map::new()), object))))
}

fn refusal(error: &Element) -> Refusal {
    let text = |name| error.text_of(name).unwrap_or_default().to_owned();
    Refusal { code: text("Code"), message: text("Message"), fault: text("Type") }
}

/// XML repeats an element where JSON has a list or a map, each under a name of its own.
fn object(element: Element) -> Value {
    let mut object = Map::new();
    for child in element.children {
        match child.name.as_str() {
            "Attribute" => {
                if let (Some(name), Some(value)) = (child.text_of("Name"), child.child("Value")) {
                    insert_into(&mut object, "Attributes", name.to_owned(), value.text.clone());
                }
            }
            // Never asked for.
            "MessageAttribute" => {}
            "Message" if !child.children.is_empty() => push(&mut object, "Messages", self::object(child)),
            "BatchResultErrorEntry" => push(&mut object, "Failed", self::object(child)),
            name if name.ends_with("BatchResultEntry") => {
                push(&mut object, "Successful", self::object(child));
            }
            "SenderFault" => {
                object.insert(child.name, Value::Bool(child.text.trim() == "true"));
            }
            // Its space is its own.
            "Body" => {
                let text = child.bytes.map_or(child.text, stand_in);
                object.insert(child.name, Value::String(text));
            }
            _ => {
                let text = child.text.trim().to_owned();
                object.insert(child.name, Value::String(text));
            }
        }
    }
    Value::Object(object)
}

fn push(object: &mut Map<String, Value>, list: &str, item: Value) {
    if let Value::Array(items) = object.entry(list).or_insert_with(|| Value::Array(Vec::new())) {
        items.push(item);
    }
}

fn insert_into(object: &mut Map<String, Value>, map: &str, name: String, value: String) {
    if let Value::Object(items) = object.entry(map).or_insert_with(|| Value::Object(Map::new())) {
        items.insert(name, Value::String(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(document: &str) -> Value {
        match read(document.as_bytes()) {
            Ok(Some(Answer::Result(result))) => result,
            other => panic!("no result: {other:?}"),
        }
    }

    #[test]
    fn messages() {
        let document = r#"<?xml version="1.0"?>
            <ReceiveMessageResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/">
              <ReceiveMessageResult>
                <Message>
                  <MessageId> 3a4b </MessageId>
                  <ReceiptHandle>
                    AbC+/==
                  </ReceiptHandle>
                  <MD5OfBody>0123</MD5OfBody>
                  <Body>  {&quot;a&quot;: "&lt;b&gt;"}&#xD;
</Body>
                  <Attribute><Name>SentTimestamp</Name><Value>1795248000123</Value></Attribute>
                  <Attribute><Name>ApproximateReceiveCount</Name><Value>2</Value></Attribute>
                  <MessageAttribute><Name>x</Name><Value><StringValue>y</StringValue></Value></MessageAttribute>
                </Message>
                <Message><MessageId>2</MessageId><Body/></Message>
              </ReceiveMessageResult>
              <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>
            </ReceiveMessageResponse>"#;
        let first = json!({
            "MessageId": "3a4b", "ReceiptHandle": "AbC+/==", "MD5OfBody": "0123",
            "Body": "  {\"a\": \"<b>\"}\r\n",
            "Attributes": { "SentTimestamp": "1795248000123", "ApproximateReceiveCount": "2" },
        });
        let second = json!({ "MessageId": "2", "Body": "" });
        assert_eq!(result(document), json!({ "Messages": [first, second] }));
    }

    #[test]
    fn no_messages() {
        for inside in ["<ReceiveMessageResult/>", "<ReceiveMessageResult>\n</ReceiveMessageResult>", ""] {
            let document = format!("<ReceiveMessageResponse>{inside}</ReceiveMessageResponse>");
            assert_eq!(result(&document), json!({}), "{inside}");
        }
    }

    #[test]
    fn batches_that_fail_in_part() {
        for action in ["DeleteMessageBatch", "ChangeMessageVisibilityBatch"] {
            let document = format!(
                "<{action}Response><{action}Result>
                   <{action}ResultEntry><Id>0</Id></{action}ResultEntry>
                   <BatchResultErrorEntry><Id>1</Id><Code>ReceiptHandleIsInvalid</Code><Message>m</Message>
                     <SenderFault>true</SenderFault></BatchResultErrorEntry>
                   <{action}ResultEntry><Id>2</Id></{action}ResultEntry>
                 </{action}Result></{action}Response>"
            );
            let failed =
                json!({ "Id": "1", "Code": "ReceiptHandleIsInvalid", "Message": "m", "SenderFault": true });
            let expected = json!({ "Successful": [{ "Id": "0" }, { "Id": "2" }], "Failed": [failed] });
            assert_eq!(result(&document), expected);
        }
    }

    #[test]
    fn the_queue_and_its_attributes() {
        let document = "<GetQueueUrlResponse><GetQueueUrlResult><QueueUrl>
            http://queue.invalid/000000000000/q?a&amp;b</QueueUrl></GetQueueUrlResult></GetQueueUrlResponse>";
        assert_eq!(result(document), json!({ "QueueUrl": "http://queue.invalid/000000000000/q?a&b" }));
        let document = "<GetQueueAttributesResponse><GetQueueAttributesResult>
            <Attribute><Name>VisibilityTimeout</Name><Value>30</Value></Attribute>
            <Attribute><Name>Policy</Name><Value/></Attribute>
            </GetQueueAttributesResult></GetQueueAttributesResponse>";
        let expected = json!({ "Attributes": { "VisibilityTimeout": "30", "Policy": "" } });
        assert_eq!(result(document), expected);
    }

    #[test]
    fn refusals() {
        let document = "<?xml version='1.0'?><ErrorResponse><Error><Type>Sender</Type>
            <Code>AWS.SimpleQueueService.NonExistentQueue</Code><Message>it's not &lt;there&gt;</Message><Detail/>
            </Error><RequestId>r</RequestId></ErrorResponse>";
        let expected = Refusal {
            code: "AWS.SimpleQueueService.NonExistentQueue".to_owned(),
            message: "it's not <there>".to_owned(),
            fault: "Sender".to_owned(),
        };
        assert_eq!(read(document.as_bytes()), Ok(Some(Answer::Error(expected))));
    }

    #[test]
    fn other_documents_are_none_of_sqs() {
        for document in
            ["<html><body>502</body></html>", "<Error><Code>NoSuchBucket</Code></Error>", "<ErrorResponse/>"]
        {
            assert_eq!(read(document.as_bytes()), Ok(None), "{document}");
        }
        assert_eq!(read(b"<ReceiveMessageResponse><ReceiveMessageResult><Message>"), Err(Error::Malformed));
    }
}
