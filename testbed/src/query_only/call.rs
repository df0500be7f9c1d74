//! A call: a form whose every field has to be asked for, and nothing else in it.

use super::refusal::Refusal;
use super::signature;
use hyper::http::request::Parts;
use std::collections::BTreeMap;

/// What a client asks.
pub(super) struct Call {
    pub(super) action: String,
    /// Where it was sent.
    pub(super) path: String,
    fields: BTreeMap<String, String>,
}

impl Call {
    /// Reads a request.
    pub(super) fn read(head: &Parts, body: &[u8]) -> Result<Self, Refusal> {
        let kind = head.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if head.method != "POST" || kind.split(';').next() != Some("application/x-www-form-urlencoded") {
            return Err(Refusal::sender("MalformedQueryString", "a form, sent by POST, is expected"));
        }
        signature::check(head, body).map_err(|why| Refusal::sender("SignatureDoesNotMatch", why))?;
        let mut fields = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(body) {
            if fields.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(Refusal::sender("MalformedQueryString", &format!("{name} is there twice")));
            }
        }
        let mut call = Self { action: String::new(), path: head.uri.path().to_owned(), fields };
        call.action = call.take("Action").ok_or_else(|| Refusal::sender("MissingAction", "no Action"))?;
        match call.take("Version").as_deref() {
            Some("2012-11-05") => Ok(call),
            _ => Err(Refusal::sender("NoSuchVersion", "Version is not 2012-11-05")),
        }
    }

    /// A field that need not be there.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.fields.remove(name)
    }

    /// A field that has to be there.
    pub(super) fn need(&mut self, name: &str) -> Result<String, Refusal> {
        self.take(name).ok_or_else(|| Refusal::sender("MissingParameter", &format!("no {name}")))
    }

    /// A number in a range.
    pub(super) fn number(
        &mut self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, Refusal> {
        let Some(text) = self.take(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| Refusal::sender("InvalidParameterValue", &format!("{name} is out of range")))
    }

    /// `Name.1`, `Name.2` and so on.
    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        (1..).map_while(|number| self.take(&format!("{name}.{number}"))).collect()
    }

    /// The entries of a batch, one to ten, each with an `Id` of its own and these members.
    pub(super) fn entries<const N: usize>(
        &mut self,
        members: [&str; N],
    ) -> Result<Vec<(String, [String; N])>, Refusal> {
        let mut entries: Vec<(String, [String; N])> = Vec::new();
        let field = format!("{}RequestEntry", self.action);
        while let Some(id) = self.take(&format!("{field}.{}.Id", entries.len() + 1)) {
            if entries.iter().any(|(other, _)| *other == id) {
                return Err(Refusal::sqs("BatchEntryIdsNotDistinct", "an Id is there twice"));
            }
            let mut values = members.map(|_| String::new());
            for (value, member) in values.iter_mut().zip(members) {
                *value = self.need(&format!("{field}.{}.{member}", entries.len() + 1))?;
            }
            entries.push((id, values));
        }
        match entries.len() {
            0 => Err(Refusal::sqs("EmptyBatchRequest", "no entries")),
            1..=10 => Ok(entries),
            _ => Err(Refusal::sqs("TooManyEntriesInBatchRequest", "more than ten entries")),
        }
    }

    /// Nothing may be left: a field that nobody asked for is a mistake.
    pub(super) fn end(self) -> Result<(), Refusal> {
        match self.fields.into_keys().next() {
            None => Ok(()),
            Some(name) => {
                Err(Refusal::sender("InvalidParameterValue", &format!("{name} is no parameter here")))
            }
        }
    }
}
