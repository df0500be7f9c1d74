//! Messages that can't be taken in are kept, sealed, with the reason why.

use super::batch::Message;
use crate::arrays::ArrayBuilder;
use crate::error::Error;
use crate::keys::Keys;
use crate::plan;
use crate::text::Text;
use pg_mask_core::login::Refusal;
use std::borrow::Cow;
use zeroize::Zeroizing;

const NEXT_IDS: &str = "SELECT pg_catalog.nextval('pgmask.quarantine_id_seq')
    FROM pg_catalog.generate_series(1, $1)";

const KEEP: &str =
    "INSERT INTO pgmask.quarantine (id, message_id, sent_at, receive_count, reason, sealed_body)
    OVERRIDING SYSTEM VALUE
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6)";

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
    for (id, (message, reason)) in next_ids(refused.len())?.into_iter().zip(refused) {
        let body = message.body.map_or(Cow::Borrowed(&[][..]), Text::to_utf8_if_it_can);
        let sealed = keys.seal(&identity(id, message.id), &body)?;
        ids.push_fixed(Some(id.to_ne_bytes()));
        message_ids.push_bytes(Some(message.id.as_server_bytes()));
        sent_at.push_fixed(message.sent_at.map(i64::to_ne_bytes));
        receive_counts.push_fixed(message.receive_count.map(i32::to_ne_bytes));
        reasons.push_bytes(Some(reason.to_string().as_bytes()));
        bodies.push_bytes(Some(&sealed));
    }
    let columns = [ids, message_ids, sent_at, receive_counts, reasons, bodies];
    plan::run(KEEP, || columns.into_iter().map(ArrayBuilder::finish).collect(), |_| ());
    Ok(())
}

/// Opens the body that was sealed for the row of that id.
pub(super) fn open(
    keys: &Keys,
    id: i64,
    message_id: Text<'_>,
    sealed_body: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    keys.open(&identity(id, message_id), sealed_body).map_err(|error| Error::Unseal { id, error })
}

/// What binds a sealed body to its row: the row's id and its message id.
fn identity(id: i64, message_id: Text<'_>) -> Vec<u8> {
    [b"pgmask.quarantine", &id.to_be_bytes()[..], &message_id.to_utf8_if_it_can()].concat()
}

/// Ids are needed before the rows are written: a body is sealed with its row's id.
fn next_ids(count: usize) -> Result<Vec<i64>, Error> {
    let ids = plan::rows(NEXT_IDS, || vec![(count as i32).into()], |row| row.get(1))?;
    if ids.len() == count { Ok(ids) } else { Err(Error::Unreadable) }
}
