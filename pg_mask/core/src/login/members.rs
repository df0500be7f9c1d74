//! The members of a JSON object that matter, each as the piece of text that it is.
//!
//! Only two levels can name a field of a login (`device_id`, or `id` in `device`), so this looks no
//! deeper: everything else is skipped, in one pass and without recursion, by `serde_json`.

use super::{Field, Login, Refusal, app_version};
use serde::Deserialize;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The members of interest of the outermost object. Of equal keys the last counts, as in jsonb.
#[derive(Default)]
pub(super) struct Members<'a> {
    fields: [Option<&'a RawValue>; Field::COUNT],
    user: Option<&'a RawValue>,
    device: Option<&'a RawValue>,
    app: Option<&'a RawValue>,
    sns_type: Option<&'a RawValue>,
    sns_message: Option<&'a RawValue>,
    detail_type: Option<&'a RawValue>,
    detail: Option<&'a RawValue>,
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
    #[serde(other)]
    Other,
}

impl<'a> Members<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, Refusal> {
        read_object(text, MembersVisitor)
    }

    /// The text of the event in an EventBridge envelope.
    pub(super) fn event_bridge_detail(&self) -> Option<&'a str> {
        self.detail_type.and(self.detail).map(RawValue::get)
    }

    /// The text of the message in an SNS envelope.
    pub(super) fn sns_message(&self) -> Result<Option<Cow<'a, str>>, Refusal> {
        match (self.sns_type, self.sns_message) {
            (Some(kind), Some(message))
                if is_string(kind) && string(kind)? == "Notification" && is_string(message) =>
            {
                string(message).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The login that these members make.
    pub(super) fn login(mut self) -> Result<Login<'a>, Refusal> {
        self.flatten(self.user, |key| (key == "id").then_some(Field::UserId))?;
        self.flatten(self.device, |key| match key {
            "id" => Some(Field::DeviceId),
            "type" => Some(Field::DeviceType),
            _ => None,
        })?;
        self.flatten(self.app, |key| (key == "version").then_some(Field::AppVersion))?;

        let user_id = self.storable_text(Field::UserId)?.filter(|id| !id.is_empty());
        let user_id = user_id.ok_or(Refusal::Missing(Field::UserId))?;
        let app_version = match self.text(Field::AppVersion)? {
            Some(text) => Some(app_version::to_integer(&text).ok_or(Refusal::Invalid(Field::AppVersion))?),
            None => None,
        };
        Ok(Login {
            user_id,
            device_type: self.storable_text(Field::DeviceType)?,
            ip: self.text(Field::Ip)?,
            device_id: self.text(Field::DeviceId)?,
            locale: self.storable_text(Field::Locale)?,
            app_version,
        })
    }

    /// Fills fields from a nested object; a flat key, null included, wins.
    fn flatten(
        &mut self,
        nested: Option<&'a RawValue>,
        field: fn(&str) -> Option<Field>,
    ) -> Result<(), Refusal> {
        let Some(nested) = nested.filter(|value| value.get().starts_with('{')) else { return Ok(()) };
        for (field, value) in read_object(nested.get(), NestedVisitor(field))?.into_iter().flatten() {
            self.fields[field as usize].get_or_insert(value);
        }
        Ok(())
    }

    /// A scalar as text: a string's content, or the JSON text of a number or boolean.
    fn text(&self, field: Field) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(value) = self.fields[field as usize] else { return Ok(None) };
        match value.get().as_bytes().first() {
            Some(b'"') => string(value).map(Some),
            Some(b'[') => Err(Refusal::Invalid(field)),
            // An object has become other names (`locale.x` is `locale_x`): nothing has this one.
            Some(b'n' | b'{') | None => Ok(None),
            Some(_) => Ok(Some(Cow::Borrowed(value.get()))),
        }
    }

    /// [`Members::text`] without U+0000, which PostgreSQL's text can't hold.
    fn storable_text(&self, field: Field) -> Result<Option<Cow<'a, str>>, Refusal> {
        match self.text(field)? {
            Some(text) if text.contains('\0') => Err(Refusal::Invalid(field)),
            text => Ok(text),
        }
    }
}

fn is_string(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

/// The content of a JSON string. A lone surrogate has none.
fn string(value: &RawValue) -> Result<Cow<'_, str>, Refusal> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(value.get()).map(|text| text.0).map_err(|_| Refusal::InvalidJson)
}

/// Runs `visitor` over the one JSON object that `text` must be.
fn read_object<'a, V: Visitor<'a>>(text: &'a str, visitor: V) -> Result<V::Value, Refusal> {
    if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
        let other = serde_json::from_str::<IgnoredAny>(text);
        return Err(other.map_or(Refusal::InvalidJson, |_| Refusal::NotAnObject));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = reader.deserialize_map(visitor).map_err(|_| Refusal::InvalidJson)?;
    reader.end().map_err(|_| Refusal::InvalidJson)?;
    Ok(value)
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
                Key::DetailType => &mut members.detail_type,
                Key::Detail => &mut members.detail,
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
