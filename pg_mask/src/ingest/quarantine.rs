//! Messages that can't be taken in are kept, sealed, with the reason why.

use super::batch::{Body, Message};
use crate::arrays::ArrayBuilder;
use crate::clock::{self, Micros};
use crate::database_id::{self, DatabaseId};
use crate::error::Error;
use crate::keys::Keys;
use crate::text::{OwnedBytes, OwnedText, Text};
use crate::{memory, plan};
use pg_mask_core::login::Refusal;
use pg_mask_core::seal::SealError;
use pgrx::prelude::*;
use std::borrow::Cow;
use zeroize::Zeroizing;

const NEXT_IDS: &str = "SELECT pg_catalog.nextval('pgmask.quarantine_id_seq')
    FROM pg_catalog.generate_series(1, $1)";

const KEEP: &str =
    "INSERT INTO pgmask.quarantine (id, message_id, sent_at, receive_count, reason, sealed_body, quarantined_at)
    OVERRIDING SYSTEM VALUE
    SELECT *, $7 FROM unnest($1, $2, $3, $4, $5, $6)";

const FIND: &str = "SELECT id, message_id, sent_at, quarantined_at, sealed_body,
        pg_catalog.octet_length(message_id) + pg_catalog.octet_length(sealed_body)
    FROM pgmask.quarantine WHERE id = $1";

/// A row of the quarantine, as far as it is needed to open it.
pub(super) struct Sealed {
    pub(super) id: i64,
    message_id: OwnedText,
    pub(super) sent_at: Option<Micros>,
    pub(super) quarantined_at: Micros,
    body: Vec<u8>,
}

/// Seals the bodies of `refused` messages and stores them.
pub(super) fn keep(keys: &Keys, refused: Vec<(&Message<'_>, Refusal)>) -> Result<(), Error> {
    if refused.is_empty() {
        return Ok(());
    }
    let mut ids = ArrayBuilder::bigint();
    let mut message_ids = ArrayBuilder::text();
    let mut sent_at = ArrayBuilder::timestamptz();
    let mut receive_counts = ArrayBuilder::integer();
    let mut reasons = ArrayBuilder::text();
    let mut bodies = ArrayBuilder::bytea();
    let here = database_id::own()?;
    let now = clock::now();
    for (id, (message, reason)) in next_ids(refused.len())?.into_iter().zip(refused) {
        let body = message.body.map_or(Cow::Borrowed(&[][..]), Body::to_utf8);
        let sealed = keys.seal(&identity(here, id, message.id, message.sent_at, now)?, &body)?;
        ids.push_fixed(Some(id.to_ne_bytes()));
        message_ids.push_bytes(Some(message.id.as_server_bytes()));
        sent_at.push_fixed(message.sent_at.map(i64::to_ne_bytes));
        receive_counts.push_fixed(message.receive_count.map(i32::to_ne_bytes));
        reasons.push_bytes(Some(reason.to_string().as_bytes()));
        bodies.push_bytes(Some(&sealed));
    }
    let columns = [ids, message_ids, sent_at, receive_counts, reasons, bodies];
    let columns = columns.into_iter().map(ArrayBuilder::finish);
    plan::run(KEEP, || columns.chain([plan::timestamptz(now)]).collect(), |_| ());
    Ok(())
}

/// The row of that id.
pub(super) fn find(id: i64) -> Result<Sealed, Error> {
    let read = |row: &plan::Row<'_>| {
        memory::for_stored(1, usize::try_from(row.get::<i32>(6)?).map_err(|_| Error::Unreadable)?)?;
        Sealed::read(row)
    };
    plan::rows(FIND, || vec![id.into()], read)?.pop().ok_or(Error::NotInQuarantine(Some(id)))
}

impl Sealed {
    /// Reads the columns id, message_id, sent_at, quarantined_at, sealed_body, which come first in `row`.
    pub(super) fn read(row: &plan::Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            id: row.get(1)?,
            message_id: row.get(2)?,
            sent_at: row.get_or_null::<TimestampWithTimeZone>(3)?.map(i64::from),
            quarantined_at: row.get::<TimestampWithTimeZone>(4)?.into(),
            body: row.get::<OwnedBytes>(5)?.0,
        })
    }

    /// Opens the body, if it was sealed for this row of a database that has one of the ids.
    pub(super) fn open(&self, keys: &Keys, databases: &[DatabaseId]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut opened = Err(SealError::Broken);
        for database in databases {
            let row =
                identity(*database, self.id, self.message_id.as_text(), self.sent_at, self.quarantined_at)?;
            opened = keys.open(&row, &self.body);
            if !matches!(opened, Err(SealError::Broken)) {
                break;
            }
        }
        opened.map_err(|error| Error::Unseal { id: self.id, error })
    }

    /// The body sealed under the seal key in use, for this row of this database.
    pub(super) fn anew(&self, keys: &Keys, databases: &[DatabaseId]) -> Result<Vec<u8>, Error> {
        let here = *databases.first().ok_or(Error::NoDatabaseId)?;
        let row = identity(here, self.id, self.message_id.as_text(), self.sent_at, self.quarantined_at)?;
        keys.seal(&row, &self.open(keys, databases)?)
    }
}

/// What binds a sealed body to its place: to the database, and to the row's id, message id and times.
fn identity(
    database: DatabaseId,
    id: i64,
    message_id: Text<'_>,
    sent_at: Option<Micros>,
    quarantined_at: Micros,
) -> Result<Vec<u8>, Error> {
    const FIXED: usize = 64;
    let message_id = message_id.to_utf8_if_it_can();
    let mut identity = memory::list(FIXED + message_id.len())?;
    identity.extend(b"pgmask.quarantine");
    identity.extend(database);
    identity.extend(id.to_be_bytes());
    identity.extend(quarantined_at.to_be_bytes());
    identity.push(sent_at.is_some().into());
    identity.extend(sent_at.unwrap_or_default().to_be_bytes());
    identity.extend(message_id.iter());
    Ok(identity)
}

/// Ids are needed before the rows are written: a body is sealed with its row's id.
fn next_ids(count: usize) -> Result<Vec<i64>, Error> {
    let ids = plan::rows(NEXT_IDS, || vec![(count as i32).into()], |row| row.get(1))?;
    if ids.len() == count { Ok(ids) } else { Err(Error::Unreadable) }
}
