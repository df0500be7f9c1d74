//! The members of a JSON object that can be of use, each as its piece of JSON text.
//!
//! The name of a field has one `_` at most, so a nested object can name a field only one level down
//! (`id` in `device` is `device_id`). Everything deeper is skipped, in one pass and without recursion, by
//! `serde_json`.

use super::number;
use super::{Field, Login, Optional, Refusal};
use serde::Deserialize;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The white space of RFC 8259, section 2.
pub(super) const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// What the arrays begin with that Amazon's extended client libraries send for a body in S3: the name of
/// a Java class in today's versions, and in the first ones.
const S3_POINTERS: [&str; 2] = [
    r#""software.amazon.payloadoffloading.PayloadS3Pointer""#,
    r#""com.amazon.sqs.javamessaging.MessageS3Pointer""#,
];

/// A number that is longer than this once it is written without exponent is too long for a column. So a
/// few bytes of a body can't become many of a row.
const LONGEST_STORED_NUMBER: usize = 1000;

/// The members of interest of the outermost object. Of equal keys the last counts, as in jsonb.
#[derive(Default)]
pub(super) struct Members<'a> {
    /// By [`Field`], from a flat key or a nested object.
    fields: [Option<&'a RawValue>; Field::COUNT],
    user: Option<&'a RawValue>,
    device: Option<&'a RawValue>,
    app: Option<&'a RawValue>,
    sns_type: Option<&'a RawValue>,
    sns_message: Option<&'a RawValue>,
    event_bridge_type: Option<&'a RawValue>,
    event_bridge_detail: Option<&'a RawValue>,
    cloud_events_version: Option<&'a RawValue>,
    cloud_events_data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(field_identifier)]
enum Key {
    #[serde(rename = "user_id")]
    UserId,
    #[serde(rename = "device_type")]
    DeviceType,
    #[serde(rename = "ip")]
    Ip,
    #[serde(rename = "device_id")]
    DeviceId,
    #[serde(rename = "locale")]
    Locale,
    #[serde(rename = "app_version")]
    AppVersion,
    #[serde(rename = "user")]
    User,
    #[serde(rename = "device")]
    Device,
    #[serde(rename = "app")]
    App,
    Type,
    Message,
    #[serde(rename = "detail-type")]
    DetailType,
    #[serde(rename = "detail")]
    Detail,
    #[serde(rename = "specversion")]
    SpecVersion,
    #[serde(rename = "data")]
    Data,
    #[serde(other)]
    Other,
}

impl<'a> Members<'a> {
    /// Reads JSON text that holds one object.
    pub(super) fn read(text: &'a str) -> Result<Self, Refusal> {
        let mut members = read_object(text, MembersVisitor)?;
        members.flatten(members.user, |key| (key == "id").then_some(Field::UserId))?;
        members.flatten(members.device, |key| match key {
            "id" => Some(Field::DeviceId),
            "type" => Some(Field::DeviceType),
            _ => None,
        })?;
        members.flatten(members.app, |key| (key == "version").then_some(Field::AppVersion))?;
        Ok(members)
    }

    /// The JSON text in the envelope that these members are; `None` if they are none.
    ///
    /// Members with a user id of their own are a login, whatever else they have.
    pub(super) fn in_envelope(&self) -> Result<Option<Cow<'a, str>>, Refusal> {
        let has_user_id =
            self.fields[Field::UserId as usize].is_some_and(|id| !is_null(id) && !is_object(id));
        if has_user_id {
            return Ok(None);
        }
        // Amazon SNS, "Parsing message formats".
        if let (Some(kind), Some(message)) = (self.sns_type, self.sns_message)
            && is_string(kind)
            && string(kind).is_ok_and(|kind| kind == "Notification")
        {
            return if is_string(message) {
                string(message).map(Some).map_err(|_| Refusal::InvalidJson)
            } else {
                Ok(Some(Cow::Borrowed(message.get())))
            };
        }
        // Amazon EventBridge, "Event structure"; CloudEvents 1.0, JSON event format.
        let present = |member: Option<&'a RawValue>| member.filter(|value| !is_null(value));
        let event_bridge = present(self.event_bridge_type).and(present(self.event_bridge_detail));
        let cloud_events = present(self.cloud_events_version).and(present(self.cloud_events_data));
        Ok(event_bridge.or(cloud_events).map(|inside| Cow::Borrowed(inside.get())))
    }

    /// The login that these members make.
    pub(super) fn login(&self) -> Result<Login<'a>, Refusal> {
        let user_id = self.stored_text(Field::UserId)?.filter(|id| !id.is_empty());
        let is_blank = |version: &Cow<'_, str>| version.trim().is_empty();
        Ok(Login {
            user_id: user_id.ok_or(Refusal::Missing(Field::UserId))?,
            device_type: self.stored_text(Field::DeviceType),
            ip: self.text(Field::Ip),
            device_id: self.text(Field::DeviceId),
            locale: self.stored_text(Field::Locale),
            app_version: self.stored_text(Field::AppVersion).map(|text| text.filter(|text| !is_blank(text))),
        })
    }

    /// Fills fields from a nested object. A flat key wins, null included; one that has an object is none:
    /// it gives other names (`user_id.x` is `user_id_x`).
    fn flatten(
        &mut self,
        nested: Option<&'a RawValue>,
        field: fn(&str) -> Option<Field>,
    ) -> Result<(), Refusal> {
        let Some(nested) = nested.filter(|value| is_object(value)) else { return Ok(()) };
        for (field, value) in read_object(nested.get(), NestedVisitor(field))?.into_iter().flatten() {
            let place = &mut self.fields[field as usize];
            if place.is_none_or(is_object) {
                *place = Some(value);
            }
        }
        Ok(())
    }

    /// A scalar as text: a string's content, the word of a boolean, or a number as
    /// [`number::plain`] writes it.
    fn text(&self, field: Field) -> Optional<'a> {
        let Some(value) = self.fields[field as usize] else { return Ok(None) };
        match value.get().as_bytes().first() {
            Some(b'"') => string(value).map(Some).map_err(|_| Refusal::Invalid(field)),
            Some(b'[') => Err(Refusal::Invalid(field)),
            Some(b'n' | b'{') | None => Ok(None),
            Some(b't' | b'f') => Ok(Some(Cow::Borrowed(value.get()))),
            Some(_) => Ok(Some(number::plain(value.get()))),
        }
    }

    /// [`Members::text`] for a column: without U+0000, which PostgreSQL's text can't hold, and without
    /// numbers that grow past bounds.
    fn stored_text(&self, field: Field) -> Optional<'a> {
        match self.text(field)? {
            Some(text) if text.contains('\0') => Err(Refusal::Invalid(field)),
            Some(Cow::Owned(number)) if self.has_number(field) && number.len() > LONGEST_STORED_NUMBER => {
                Err(Refusal::TooLong(field))
            }
            text => Ok(text),
        }
    }

    fn has_number(&self, field: Field) -> bool {
        self.fields[field as usize].is_some_and(|value| !is_string(value))
    }
}

fn is_string(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// A `\ud800` or the like in a JSON string, alone: RFC 8259 (section 8.2) lets it stand, but it is no
/// character.
pub(super) struct LoneSurrogate;

/// The content of a JSON string.
fn string(value: &RawValue) -> Result<Cow<'_, str>, LoneSurrogate> {
    // Nothing else can be wrong with it: a RawValue follows JSON's grammar.
    read_string(value.get()).map_err(|_| LoneSurrogate)
}

/// The content of the one JSON string that `text` must be.
pub(super) fn read_string(text: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(text).map(|text| text.0)
}

/// Runs `visitor` over the one JSON object that `text` must be.
fn read_object<'a, V: Visitor<'a>>(text: &'a str, visitor: V) -> Result<V::Value, Refusal> {
    if !text.trim_start_matches(WHITE_SPACE).starts_with('{') {
        return Err(why_no_object(text));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = reader.deserialize_map(visitor).map_err(|_| Refusal::InvalidJson)?;
    reader.end().map_err(|_| Refusal::InvalidJson)?;
    Ok(value)
}

fn why_no_object(text: &str) -> Refusal {
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Refusal::InvalidJson;
    }
    let mut inside = text.trim_start_matches(WHITE_SPACE).strip_prefix('[').unwrap_or_default();
    inside = inside.trim_start_matches(WHITE_SPACE);
    if S3_POINTERS.iter().any(|name| inside.starts_with(name)) {
        Refusal::S3Pointer
    } else {
        Refusal::NotAnObject
    }
}

struct MembersVisitor;

impl<'a> Visitor<'a> for MembersVisitor {
    type Value = Members<'a>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Members<'a>, A::Error> {
        let mut members = Members::default();
        while let Some(key) = map.next_key()? {
            let place = match key {
                Key::UserId => &mut members.fields[Field::UserId as usize],
                Key::DeviceType => &mut members.fields[Field::DeviceType as usize],
                Key::Ip => &mut members.fields[Field::Ip as usize],
                Key::DeviceId => &mut members.fields[Field::DeviceId as usize],
                Key::Locale => &mut members.fields[Field::Locale as usize],
                Key::AppVersion => &mut members.fields[Field::AppVersion as usize],
                Key::User => &mut members.user,
                Key::Device => &mut members.device,
                Key::App => &mut members.app,
                Key::Type => &mut members.sns_type,
                Key::Message => &mut members.sns_message,
                Key::DetailType => &mut members.event_bridge_type,
                Key::Detail => &mut members.event_bridge_detail,
                Key::SpecVersion => &mut members.cloud_events_version,
                Key::Data => &mut members.cloud_events_data,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *place = Some(map.next_value()?);
        }
        Ok(members)
    }
}

/// Picks the members of a nested object that a function gives a field for.
struct NestedVisitor(fn(&str) -> Option<Field>);

impl<'a> Visitor<'a> for NestedVisitor {
    type Value = [Option<(Field, &'a RawValue)>; Field::COUNT];

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        struct Picked(Option<Field>);
        struct Pick(fn(&str) -> Option<Field>);
        impl<'a> serde::de::DeserializeSeed<'a> for Pick {
            type Value = Picked;
            fn deserialize<D: serde::Deserializer<'a>>(self, reader: D) -> Result<Picked, D::Error> {
                reader.deserialize_identifier(self)
            }
        }
        impl Visitor<'_> for Pick {
            type Value = Picked;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E>(self, key: &str) -> Result<Picked, E> {
                Ok(Picked((self.0)(key)))
            }
        }
        let mut picked = [None; Field::COUNT];
        while let Some(Picked(field)) = map.next_key_seed(Pick(self.0))? {
            match field {
                Some(field) => picked[field as usize] = Some((field, map.next_value()?)),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(picked)
    }
}
