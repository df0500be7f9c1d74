//! From a message body to the fields of a login, or the reason why it is none.
//!
//! - [`parse`] reads JSON text, opens envelopes and flattens (ingestion contract)
//! - [`app_version`] turns versions into integers and back
//! - [`Refusal`] is why a body is quarantined; it never holds a value from it

pub mod app_version;
mod members;
mod refusal;

pub use refusal::{Field, Refusal};

use members::Members;
use std::borrow::Cow;

/// SNS inside EventBridge inside SNS: more envelopes than any real route has.
const MOST_ENVELOPES: usize = 4;

/// A login event, its values still raw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login<'a> {
    /// Never empty.
    pub user_id: Cow<'a, str>,
    /// `device_type`, or `device.type`.
    pub device_type: Option<Cow<'a, str>>,
    /// To be masked.
    pub ip: Option<Cow<'a, str>>,
    /// To be masked.
    pub device_id: Option<Cow<'a, str>>,
    /// Stored as it is.
    pub locale: Option<Cow<'a, str>>,
    /// As [`app_version::to_integer`] gives it.
    pub app_version: Option<i32>,
}

/// Reads a login from a message body: UTF-8 JSON text, perhaps in an SNS or EventBridge envelope.
///
/// Takes time linear in the body's length and, but for strings with escapes, no memory.
pub fn parse(body: &[u8]) -> Result<Login<'_>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| Refusal::InvalidJson)?;
    // RFC 8259, section 8.1: a parser may ignore a byte order mark.
    open(text.strip_prefix('\u{feff}').unwrap_or(text), MOST_ENVELOPES)
}

fn open(text: &str, envelopes_left: usize) -> Result<Login<'_>, Refusal> {
    let members = Members::read(text)?;
    if envelopes_left > 0 {
        if let Some(detail) = members.event_bridge_detail() {
            return open(detail, envelopes_left - 1);
        }
        if let Some(message) = members.sns_message()? {
            return open(&message, envelopes_left - 1).map(Login::into_owned);
        }
    }
    members.login()
}

impl Login<'_> {
    fn into_owned(self) -> Login<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Login {
            user_id: owned(self.user_id),
            device_type: self.device_type.map(owned),
            ip: self.ip.map(owned),
            device_id: self.device_id.map(owned),
            locale: self.locale.map(owned),
            app_version: self.app_version,
        }
    }

    /// The texts that are stored as they are.
    pub fn stored_texts(&self) -> [(Field, Option<&str>); 3] {
        [
            (Field::UserId, Some(&self.user_id)),
            (Field::DeviceType, self.device_type.as_deref()),
            (Field::Locale, self.locale.as_deref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Refusal::{Invalid, InvalidJson, Missing, NotAnObject};

    fn login(user_id: &str) -> Login<'_> {
        Login {
            user_id: user_id.into(),
            device_type: None,
            ip: None,
            device_id: None,
            locale: None,
            app_version: None,
        }
    }

    fn full() -> Login<'static> {
        Login {
            user_id: "u".into(),
            device_type: Some("ios".into()),
            ip: Some("192.0.2.1".into()),
            device_id: Some("d-1".into()),
            locale: Some("DE".into()),
            app_version: Some(2_003_000),
        }
    }

    const FLAT: &str = r#"{"user_id":"u","device_type":"ios","ip":"192.0.2.1","device_id":"d-1","locale":"DE","app_version":"2.3.0"}"#;

    #[test]
    fn takes_logins_in_every_form() {
        let nested = r#"{"user":{"id":"u"},"device":{"id":"d-1","type":"ios"},"ip":"192.0.2.1","locale":"DE","app":{"version":"2.3.0"}}"#;
        let sns = serde_json::json!({"Type": "Notification", "MessageId": "x", "Message": FLAT}).to_string();
        let event_bridge = format!(r#"{{"version":"0","detail-type":"login","detail":{nested}}}"#);
        let both = serde_json::json!({"Type": "Notification", "Message": event_bridge}).to_string();
        for body in
            [FLAT, nested, &sns, &event_bridge, &both, &format!("\u{feff}{FLAT}"), &format!(" \n{FLAT}\t")]
        {
            assert_eq!(parse(body.as_bytes()), Ok(full()), "{body}");
        }
    }

    #[test]
    fn flattens() {
        for (body, expected) in [
            (r#"{"user_id":"a","user":{"id":"b"}}"#, login("a")),
            (r#"{"user":{"id":"b"},"user_id":"a"}"#, login("a")),
            (r#"{"user":{"id":"b","name":{"first":"x"}},"x":[{"user_id":1}],"user_name":{}}"#, login("b")),
            (r#"{"user_id":"first","user_id":"last"}"#, login("last")),
            (r#"{"user":{"id":"first"},"user":{"id":"last"}}"#, login("last")),
            (r#"{"us\u0065r_id":"escaped"}"#, login("escaped")),
            (r#"{"user_id":"a\"\u00e4\ud83d\ude00"}"#, login("a\"ä😀")),
            (r#"{"user_id":12345678901234567890.50}"#, login("12345678901234567890.50")),
            (r#"{"user_id":-1e400}"#, login("-1e400")),
            (r#"{"user_id":true}"#, login("true")),
            (r#"{"user_id":"a","ip":null,"locale":{"x":1},"device":"text","app":null}"#, login("a")),
            (r#"{"user_id":"a","Type":"Notification"}"#, login("a")),
            (r#"{"user_id":"a","detail":{"user_id":"b"}}"#, login("a")),
            (r#"{"user_id":"a","foo":"\ud800"}"#, login("a")),
        ] {
            assert_eq!(parse(body.as_bytes()), Ok(expected), "{body}");
        }
        let masked_only = Login { ip: Some("7".into()), device_id: Some("a\0b".into()), ..login("a") };
        assert_eq!(parse(br#"{"user_id":"a","ip":7,"device_id":"a\u0000b"}"#), Ok(masked_only));
    }

    #[test]
    fn refuses_what_is_no_login() {
        for (body, expected) in [
            ("", InvalidJson),
            (" ", InvalidJson),
            ("{", InvalidJson),
            ("nul", InvalidJson),
            ("[1", InvalidJson),
            ("{} {}", InvalidJson),
            ("{'user_id':1}", InvalidJson),
            (r#"{"user_id":"\ud800"}"#, InvalidJson),
            (r#"{"user_id":"a","x":01}"#, InvalidJson),
            ("\u{feff}\u{feff}{}", InvalidJson),
            ("null", NotAnObject),
            ("[]", NotAnObject),
            (r#"[{"user_id":"a"}]"#, NotAnObject),
            (r#""{}""#, NotAnObject),
            ("-0.5e-7", NotAnObject),
            ("{}", Missing(Field::UserId)),
            (r#"{"foo":"x"}"#, Missing(Field::UserId)),
            (r#"{"user_id":""}"#, Missing(Field::UserId)),
            (r#"{"user_id":null,"user":{"id":"b"}}"#, Missing(Field::UserId)),
            (r#"{"user_id":{"id":"b"}}"#, Missing(Field::UserId)),
            (r#"{"user_id":["b"]}"#, Invalid(Field::UserId)),
            (r#"{"user_id":"a\u0000"}"#, Invalid(Field::UserId)),
            (r#"{"user_id":"a","locale":"\u0000"}"#, Invalid(Field::Locale)),
            (r#"{"user_id":"a","device":{"id":[]}}"#, Invalid(Field::DeviceId)),
            (r#"{"user_id":"a","app_version":"x"}"#, Invalid(Field::AppVersion)),
            (r#"{"Type":"Notification","Message":"no json"}"#, InvalidJson),
            (r#"{"Type":"Notification","Message":"[]"}"#, NotAnObject),
            (r#"{"detail-type":"login","detail":[]}"#, NotAnObject),
            (r#"{"detail-type":"login","detail":{}}"#, Missing(Field::UserId)),
        ] {
            assert_eq!(parse(body.as_bytes()), Err(expected), "{body}");
        }
        assert_eq!(parse(b"{\"user_id\":\"\xff\"}"), Err(InvalidJson));
    }

    #[test]
    fn depth_is_no_danger() {
        let deep = 1_000_000;
        let bomb = format!(r#"{{"user_id":"a","x":{}{}}}"#, "[".repeat(deep), "]".repeat(deep));
        assert_eq!(parse(bomb.as_bytes()), Ok(login("a")));
        let device_bomb =
            format!(r#"{{"user_id":"a","device":{}1{}}}"#, r#"{"id":"#.repeat(deep), "}".repeat(deep));
        assert_eq!(parse(device_bomb.as_bytes()), Ok(login("a")));
        assert_eq!(parse("[".repeat(deep).as_bytes()), Err(InvalidJson));
        let mut envelopes = FLAT.to_owned();
        for _ in 0..10 {
            envelopes = serde_json::json!({"Type": "Notification", "Message": envelopes}).to_string();
        }
        assert_eq!(parse(envelopes.as_bytes()), Err(Missing(Field::UserId)));
    }
}
