//! What the forwarder gives: four arrays, a place a message.

use crate::clock::{self, Day, Micros};
use crate::error::Error;
use crate::memory;
use crate::text::Text;
use pg_mask_core::hmac_key::sha256;
use pg_mask_core::sent_time;
use pgrx::prelude::*;
use std::borrow::Cow;

/// A message, as SQS gave it.
pub(super) struct Message<'a> {
    /// Where it stands in the batch.
    pub(super) place: usize,
    pub(super) id: Text<'a>,
    /// Where in the ledger it is entered.
    pub(super) slot: Slot,
    /// What the ledger knows it by in that slot.
    pub(super) key: MessageKey,
    pub(super) sent_at: Option<Micros>,
    pub(super) create_date: Day,
    pub(super) receive_count: Option<i32>,
    pub(super) body: Option<Body<'a>>,
}

/// A body as the client gave it.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    Text(Text<'a>),
    /// UTF-8 as a rule, and perhaps with bytes that no text of PostgreSQL's has.
    Bytes(&'a [u8]),
}

impl<'a> Body<'a> {
    fn len(self) -> usize {
        match self {
            Self::Text(text) => text.as_server_bytes().len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// In UTF-8, as far as that can be had.
    pub(super) fn to_utf8(self) -> Cow<'a, [u8]> {
        match self {
            Self::Text(text) => text.to_utf8_if_it_can(),
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
        }
    }
}

/// The array of bodies, of either type.
pub(super) trait Bodies {
    fn count(&self) -> usize;
    fn bodies(&self) -> impl Iterator<Item = Option<Body<'_>>>;
}

impl Bodies for Array<'_, Text<'_>> {
    fn count(&self) -> usize {
        self.len()
    }

    fn bodies(&self) -> impl Iterator<Item = Option<Body<'_>>> {
        self.iter().map(|body| body.map(Body::Text))
    }
}

impl Bodies for Array<'_, &[u8]> {
    fn count(&self) -> usize {
        self.len()
    }

    fn bodies(&self) -> impl Iterator<Item = Option<Body<'_>>> {
        self.iter().map(|body| body.map(Body::Bytes))
    }
}

/// A message id in 16 bytes.
pub(super) type MessageKey = [u8; 16];

/// A partition of the ledger: ledger.sql explains them.
pub(super) type Slot = i16;

const SLOTS_OF_DAYS: Day = 32;
/// The slot of messages without a believable time of sending.
const NO_SENT_TIME: Slot = 32;

pub(super) struct Batch<'a> {
    pub(super) messages: Vec<Message<'a>>,
}

impl<'a> Batch<'a> {
    pub(super) fn read(
        message_ids: &'a Array<'_, Text<'_>>,
        bodies: &'a impl Bodies,
        sent_at: &Array<'_, TimestampWithTimeZone>,
        receive_counts: &Array<'_, i32>,
    ) -> Result<Self, Error> {
        let count = message_ids.len();
        if [bodies.count(), sent_at.len(), receive_counts.len()] != [count; 3] {
            return Err(Error::BatchShape(
                "message_ids, bodies, sent_at and receive_counts differ in length",
            ));
        }
        let ids: usize = message_ids.iter().flatten().map(|id| id.as_server_bytes().len()).sum();
        let bytes: usize = bodies.bodies().flatten().map(Body::len).sum();
        memory::for_messages(count, ids + bytes)?;
        let now = clock::now();
        let mut messages = memory::list(count)?;
        let places = message_ids.iter().zip(bodies.bodies()).zip(sent_at.iter()).zip(receive_counts.iter());
        for (place, (((id, body), sent_at), receive_count)) in places.enumerate() {
            let Some(id) = id else { return Err(Error::BatchShape("a message id is NULL")) };
            let sent_at = sent_at.map(i64::from);
            messages.push(Message {
                place,
                key: key(&id.to_utf8_if_it_can()),
                id,
                slot: slot(sent_at),
                sent_at,
                create_date: create_date(sent_at, now),
                receive_count,
                body,
            });
        }
        Ok(Self { messages })
    }
}

/// The UTC date of a message: of the day it came, if its sent time can't be true.
pub(super) fn create_date(sent_at: Option<Micros>, came_at: Micros) -> Day {
    let believable = sent_time::believable(sent_at.map(clock::to_unix), clock::to_unix(came_at));
    clock::day_of(believable.map_or(came_at, clock::from_unix))
}

/// Every delivery of a message has to come to the same slot, or it would be stored twice. So the slot
/// depends on the time of sending alone and not on what the clock says, unlike [`create_date`].
fn slot(sent_at: Option<Micros>) -> Slot {
    let day_of_ring = |time| clock::day_of(clock::from_unix(time)).rem_euclid(SLOTS_OF_DAYS) as Slot;
    sent_time::possible(sent_at.map(clock::to_unix)).map_or(NO_SENT_TIME, day_of_ring)
}

/// A UUID as SQS writes it is its own key. Any other id is hashed into one of version 8 (RFC 9562),
/// which no SQS id has.
fn key(id: &[u8]) -> MessageKey {
    if let Some(uuid) = parse_uuid(id) {
        return uuid;
    }
    let mut key = [0; 16];
    key.copy_from_slice(&sha256(id)[..16]);
    key[6] = 0x80 | key[6] & 0x0f;
    key[8] = 0x80 | key[8] & 0x3f;
    key
}

/// Only the one spelling that SQS uses, lower-case with hyphens, and no version 8: ids that differ
/// in any way stay different.
fn parse_uuid(text: &[u8]) -> Option<MessageKey> {
    if text.len() != 36 {
        return None;
    }
    let mut uuid = [0; 16];
    let mut digits = 0;
    for (at, byte) in text.iter().enumerate() {
        let value = match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => continue,
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => byte - b'0',
            (_, b'a'..=b'f') => byte - b'a' + 10,
            _ => return None,
        };
        uuid[digits / 2] = uuid[digits / 2] << 4 | value;
        digits += 1;
    }
    (uuid[6] >> 4 != 8).then_some(uuid)
}
