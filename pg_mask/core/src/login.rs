//! From a message body to the fields of a login, or the reason why it is none.
//!
//! - [`parse`] reads JSON text, opens envelopes and flattens (ingestion contract)
//! - [`app_version`] turns versions into integers and back
//! - [`Refusal`] is why a body is quarantined; it never holds a value from it

pub mod app_version;
mod members;
mod number;
mod refusal;

pub use refusal::{Field, Refusal};

use members::Members;
use std::borrow::Cow;

/// How many envelopes and JSON strings are opened, one inside the other. More than any real route has:
/// SNS puts JSON text into a string, and so may whoever sends to SNS or EventBridge.
const MOST_LAYERS: usize = 8;

/// The text of an optional field; `Ok(None)` if it is absent or null. It is the caller's choice whether
/// [`Refusal::Invalid`] or [`Refusal::TooLong`] is about this field alone or about the whole message.
pub type Optional<'a> = Result<Option<Cow<'a, str>>, Refusal>;

/// A login event, its values still raw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login<'a> {
    /// Never empty.
    pub user_id: Cow<'a, str>,
    /// `device_type`, or `device.type`.
    pub device_type: Optional<'a>,
    /// `ip`, to be masked.
    pub ip: Optional<'a>,
    /// `device_id`, or `device.id`, to be masked.
    pub device_id: Optional<'a>,
    /// `locale`, stored as it is.
    pub locale: Optional<'a>,
    /// `app_version`, or `app.version`: the text as it came, for [`app_version::to_integer`] or a column of
    /// texts. `None` if it is empty or white space.
    pub app_version: Optional<'a>,
}

/// Reads a login from a message body: UTF-8 JSON text, perhaps in envelopes.
///
/// A body without a `user_id` of its own is opened if it is an envelope of SNS (`Type` is `Notification`,
/// `Message`), EventBridge (`detail-type`, `detail`) or CloudEvents (`specversion`, `data`), or a JSON
/// string. What is inside may be an object or JSON text, and an envelope again.
///
/// Takes time linear in the body's length and, but for strings with escapes, no memory.
pub fn parse(body: &[u8]) -> Result<Login<'_>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| Refusal::InvalidJson)?;
    // RFC 8259, section 8.1: a parser may ignore a byte order mark.
    open(text.strip_prefix('\u{feff}').unwrap_or(text), MOST_LAYERS)
}

fn open(text: &str, layers_left: usize) -> Result<Login<'_>, Refusal> {
    if text.trim_start_matches(members::WHITE_SPACE).starts_with('"') {
        return open_string(text, layers_left);
    }
    let members = Members::read(text)?;
    let inside = if layers_left > 0 { members.in_envelope()? } else { None };
    match inside {
        None => members.login(),
        Some(Cow::Borrowed(inside)) => open(inside, layers_left - 1),
        Some(Cow::Owned(inside)) => open(&inside, layers_left - 1).map(Login::into_owned),
    }
}

/// Opens a JSON string that holds JSON text.
fn open_string(text: &str, layers_left: usize) -> Result<Login<'_>, Refusal> {
    let inside = members::read_string(text).map_err(|_| Refusal::InvalidJson)?;
    if layers_left == 0 {
        return Err(Refusal::NotAnObject);
    }
    match open(&inside, layers_left - 1) {
        // A string that does not even begin like an object is meant to be a string.
        Err(Refusal::InvalidJson) if !inside.trim_start().starts_with('{') => Err(Refusal::NotAnObject),
        login => login.map(Login::into_owned),
    }
}

impl Login<'_> {
    fn into_owned(self) -> Login<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let owned_optional = |text: Optional<'_>| text.map(|text| text.map(owned));
        Login {
            user_id: owned(self.user_id),
            device_type: owned_optional(self.device_type),
            ip: owned_optional(self.ip),
            device_id: owned_optional(self.device_id),
            locale: owned_optional(self.locale),
            app_version: owned_optional(self.app_version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Refusal::{Invalid, InvalidJson, Missing, NotAnObject, S3Pointer, TooLong};

    fn login(user_id: &str) -> Login<'_> {
        Login {
            user_id: user_id.into(),
            device_type: Ok(None),
            ip: Ok(None),
            device_id: Ok(None),
            locale: Ok(None),
            app_version: Ok(None),
        }
    }

    fn some(text: &str) -> Optional<'_> {
        Ok(Some(text.into()))
    }

    fn full() -> Login<'static> {
        Login {
            user_id: "u".into(),
            device_type: some("ios"),
            ip: some("192.0.2.1"),
            device_id: some("d-1"),
            locale: some("DE"),
            app_version: some("2.3.0"),
        }
    }

    const FLAT: &str = r#"{"user_id":"u","device_type":"ios","ip":"192.0.2.1","device_id":"d-1","locale":"DE","app_version":"2.3.0"}"#;
    const NESTED: &str = r#"{"user":{"id":"u"},"device":{"id":"d-1","type":"ios"},"ip":"192.0.2.1","locale":"DE","app":{"version":"2.3.0"}}"#;

    /// JSON text as a JSON string.
    fn quoted(text: &str) -> String {
        serde_json::Value::from(text).to_string()
    }

    /// Each kind of envelope around JSON text, as an object and as text where it may be either.
    fn envelopes(inside: &str) -> Vec<String> {
        let text = quoted(inside);
        vec![
            text.clone(),
            format!(r#"{{"Type":"Notification","MessageId":"x","Message":{text}}}"#),
            format!(r#"{{"Message":{inside},"Type":"Notification"}}"#),
            format!(r#"{{"version":"0","detail-type":"login","detail":{inside}}}"#),
            format!(r#"{{"version":"0","detail-type":"login","detail":{text}}}"#),
            format!(r#"{{"specversion":"1.0","type":"login","source":"/app","id":"1","data":{inside}}}"#),
            format!(r#"{{"specversion":"1.0","type":"login","source":"/app","id":"1","data":{text}}}"#),
            format!(r#" {{"user_id":null,"user":{{"name":"x"}},"detail-type":"login","detail":{inside}}} "#),
            format!(r#"{{"user_id":{{"x":1}},"detail-type":"login","detail":{inside}}}"#),
        ]
    }

    #[test]
    fn takes_logins_in_every_form() {
        for body in [FLAT, NESTED, &format!("\u{feff}{FLAT}"), &format!(" \n{FLAT}\t")] {
            assert_eq!(parse(body.as_bytes()), Ok(full()), "{body}");
        }
    }

    #[test]
    fn opens_envelopes_in_envelopes() {
        for once in envelopes(NESTED) {
            assert_eq!(parse(once.as_bytes()), Ok(full()), "{once}");
            for twice in envelopes(&once) {
                assert_eq!(parse(twice.as_bytes()), Ok(full()), "{twice}");
            }
        }
    }

    #[test]
    fn opens_only_what_has_no_user_id() {
        for own in [r#""user_id":"a""#, r#""user":{"id":"a"}"#, r#""user_id":"x","user_id":"a""#] {
            for other in [
                r#""Type":"Notification","Message":"{\"user_id\":\"b\"}""#,
                r#""Type":"Notification","Message":"no json""#,
                r#""detail-type":"login","detail":{"user_id":"b"}"#,
                r#""detail-type":[],"detail":[]"#,
                r#""specversion":"1.0","data":"x""#,
            ] {
                for body in [format!("{{{own},{other}}}"), format!("{{{other},{own}}}")] {
                    assert_eq!(parse(body.as_bytes()), Ok(login("a")), "{body}");
                }
            }
        }
        for (body, expected) in [
            (r#"{"user_id":"","detail-type":"login","detail":{"user_id":"b"}}"#, Missing(Field::UserId)),
            (r#"{"user_id":["a"],"detail-type":"login","detail":{"user_id":"b"}}"#, Invalid(Field::UserId)),
        ] {
            assert_eq!(parse(body.as_bytes()), Err(expected), "{body}");
        }
    }

    #[test]
    fn flattens() {
        for (body, expected) in [
            (r#"{"user_id":"a","user":{"id":"b"}}"#, login("a")),
            (r#"{"user":{"id":"b"},"user_id":"a"}"#, login("a")),
            (r#"{"user":{"id":"b"},"user_id":{"id":"a"}}"#, login("b")),
            (r#"{"user":{"id":"b","name":{"first":"x"}},"x":[{"user_id":1}],"user_name":{}}"#, login("b")),
            (r#"{"user_id":"first","user_id":"last"}"#, login("last")),
            (r#"{"user":{"id":"first"},"user":{"id":"last"}}"#, login("last")),
            (r#"{"us\u0065r_id":"escaped"}"#, login("escaped")),
            (r#"{"user_id":"a\"\u00e4\ud83d\ude00"}"#, login("a\"ä😀")),
            (r#"{"user_id":12345678901234567890.50}"#, login("12345678901234567890.50")),
            (r#"{"user_id":-1.50e2}"#, login("-150")),
            (r#"{"user_id":1e999999999}"#, login("1e999999999")),
            (r#"{"user_id":true}"#, login("true")),
            (r#"{"user_id":"a","ip":null,"locale":{"x":1},"device":"text","app":null}"#, login("a")),
            (r#"{"user_id":"a","Type":"Notification"}"#, login("a")),
            (r#"{"user_id":"a","foo":"\ud800"}"#, login("a")),
            (r#"{"user_id":"a","app_version":" \t"}"#, login("a")),
        ] {
            assert_eq!(parse(body.as_bytes()), Ok(expected), "{body}");
        }
        let masked_only = Login { ip: some("7"), device_id: some("a\0b"), ..login("a") };
        assert_eq!(parse(br#"{"user_id":"a","ip":7,"device_id":"a\u0000b"}"#), Ok(masked_only));
        let version = Login { app_version: some(" v3.1.4 (4512)"), ..login("a") };
        assert_eq!(parse(br#"{"user_id":"a","app":{"version":" v3.1.4 (4512)"}}"#), Ok(version));
    }

    #[test]
    fn says_which_field_is_wrong() {
        let invalid = |field| Err(Invalid(field));
        for (body, expected) in [
            (r#"{"user_id":"a","locale":"\u0000"}"#, Login { locale: invalid(Field::Locale), ..login("a") }),
            (r#"{"user_id":"a","locale":"\ud800"}"#, Login { locale: invalid(Field::Locale), ..login("a") }),
            (r#"{"user_id":"a","ip":"\udc00"}"#, Login { ip: invalid(Field::Ip), ..login("a") }),
            (
                r#"{"user_id":"a","device":{"id":[]}}"#,
                Login { device_id: invalid(Field::DeviceId), ..login("a") },
            ),
            (
                r#"{"user_id":"a","device_type":["x"]}"#,
                Login { device_type: invalid(Field::DeviceType), ..login("a") },
            ),
            (
                r#"{"user_id":"a","app_version":[2,3]}"#,
                Login { app_version: invalid(Field::AppVersion), ..login("a") },
            ),
            (
                r#"{"user_id":"a","locale":1e1000}"#,
                Login { locale: Err(TooLong(Field::Locale)), ..login("a") },
            ),
        ] {
            assert_eq!(parse(body.as_bytes()), Ok(expected), "{body}");
        }
        // A token of it has the same length as any other.
        let number = parse(br#"{"user_id":"a","device_id":1e1000}"#).unwrap().device_id;
        assert_eq!(number.unwrap().unwrap().len(), 1001);
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
            (r#"{"user_id":"a","x":01}"#, InvalidJson),
            (r#""{}"#, InvalidJson),
            (r#""{}" x"#, InvalidJson),
            (r#""\ud800""#, InvalidJson),
            ("\u{feff}\u{feff}{}", InvalidJson),
            ("null", NotAnObject),
            ("[]", NotAnObject),
            (r#"[{"user_id":"a"}]"#, NotAnObject),
            (r#""text""#, NotAnObject),
            (r#""""#, NotAnObject),
            (r#""null""#, NotAnObject),
            (r#""{\"user_id\"""#, InvalidJson),
            (r#""{}""#, Missing(Field::UserId)),
            ("-0.5e-7", NotAnObject),
            ("{}", Missing(Field::UserId)),
            (r#"{"foo":"x"}"#, Missing(Field::UserId)),
            (r#"{"user_id":""}"#, Missing(Field::UserId)),
            (r#"{"user_id":null,"user":{"id":"b"}}"#, Missing(Field::UserId)),
            (r#"{"user_id":{"id":"b"}}"#, Missing(Field::UserId)),
            (r#"{"user_id":["b"]}"#, Invalid(Field::UserId)),
            (r#"{"user_id":"a\u0000"}"#, Invalid(Field::UserId)),
            (r#"{"user_id":"\ud800"}"#, Invalid(Field::UserId)),
            (r#"{"user_id":1e1000}"#, TooLong(Field::UserId)),
            (r#"{"Type":"Notification","Message":"no json"}"#, InvalidJson),
            (r#"{"Type":"Notification","Message":"\ud800"}"#, InvalidJson),
            (r#"{"Type":"Notification","Message":"[]"}"#, NotAnObject),
            (r#"{"Type":"Notification","Message":1}"#, NotAnObject),
            (r#"{"Type":"SubscriptionConfirmation","Message":"{}"}"#, Missing(Field::UserId)),
            (r#"{"detail-type":"login","detail":[]}"#, NotAnObject),
            (r#"{"detail-type":"login","detail":"text"}"#, NotAnObject),
            (r#"{"detail-type":"login","detail":null}"#, Missing(Field::UserId)),
            (r#"{"detail-type":"login","detail":{}}"#, Missing(Field::UserId)),
            (r#"{"detail":{"user_id":"a"},"data":{"user_id":"a"}}"#, Missing(Field::UserId)),
        ] {
            assert_eq!(parse(body.as_bytes()), Err(expected), "{body}");
        }
        assert_eq!(parse(b"{\"user_id\":\"\xff\"}"), Err(InvalidJson));
        assert_eq!(parse(b"{\"user_id\":\"\0\"}"), Err(InvalidJson));
        assert_eq!(parse(b"{\"user_id\":\"\xed\xa0\x80\"}"), Err(InvalidJson)); // a surrogate in UTF-8's form
    }

    #[test]
    fn knows_pointers_to_bodies_in_s3() {
        for pointer in [
            r#"["software.amazon.payloadoffloading.PayloadS3Pointer",{"s3BucketName":"b","s3Key":"k"}]"#,
            r#" [ "com.amazon.sqs.javamessaging.MessageS3Pointer" , {"s3BucketName":"b","s3Key":"k"} ] "#,
        ] {
            assert_eq!(parse(pointer.as_bytes()), Err(S3Pointer), "{pointer}");
            for body in envelopes(pointer) {
                assert_eq!(parse(body.as_bytes()), Err(S3Pointer), "{body}");
            }
        }
        let other = r#"["software.amazon.payloadoffloading.Other",{}]"#;
        assert_eq!(parse(other.as_bytes()), Err(NotAnObject));
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

        // Envelopes in envelopes, as deep as they are opened and once more.
        let in_sns = |inside: &str| format!(r#"{{"Type":"Notification","Message":{}}}"#, quoted(inside));
        let mut body = FLAT.to_owned();
        for _ in 0..MOST_LAYERS {
            body = in_sns(&body);
            assert_eq!(parse(body.as_bytes()), Ok(full()));
        }
        assert_eq!(parse(in_sns(&body).as_bytes()), Err(Missing(Field::UserId)));
        let mut text = FLAT.to_owned();
        for _ in 0..MOST_LAYERS {
            text = quoted(&text);
            assert_eq!(parse(text.as_bytes()), Ok(full()));
        }
        assert_eq!(parse(quoted(&text).as_bytes()), Err(NotAnObject));
        let deep_envelope = r#"{"detail-type":"","detail":"#;
        let bomb = format!("{}1{}", deep_envelope.repeat(deep), "}".repeat(deep));
        assert_eq!(parse(bomb.as_bytes()), Err(Missing(Field::UserId)));
    }
}
