//! Answers: the Query protocol's XML, as the AWS JSON protocol would have put it.
//!
//! Shapes: Amazon SQS API Reference, API version 2012-11-05, the examples of each action, and "Making
//! Query API requests", "Error responses".

use super::xml::{Element, Malformed};
use serde_json::{Map, Value};

/// What a Query server answered.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// The action's result, as JSON.
    Result(Value),
    /// A refusal.
    Error(Refusal),
}

/// Why a server refuses.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    /// Such as `AWS.SimpleQueueService.NonExistentQueue`.
    pub(super) code: String,
    /// For people.
    pub(super) message: String,
    /// `Sender` or `Receiver`: whose fault it is.
    pub(super) fault: String,
}

impl Refusal {
    /// The body of an AWS JSON answer that says the same.
    pub(super) fn json(&self) -> Value {
        serde_json::json!({ "__type": self.code, "message": self.message })
    }
}

/// Reads an answer. `None` if it is XML, but no answer of SQS.
pub(super) fn read(document: &[u8]) -> Result<Option<Answer>, Malformed> {
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
                object.insert(child.name, Value::String(child.text));
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
