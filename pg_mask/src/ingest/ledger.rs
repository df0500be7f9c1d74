//! The ledger: which messages were taken in. Claiming a message and storing what became of it are
//! one transaction, so a message has its effect exactly once, however often it is delivered.

use super::batch::{Message, MessageKey, Slot};
use crate::arrays::ArrayBuilder;
use crate::error::Error;
use crate::subtransaction::attempt;
use crate::{clock, plan, standbys};
use pgrx::Uuid;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use std::cmp::Ordering;

const UNIQUE_VIOLATION: &[u8; 5] = b"23505";

/// In the order of the arguments: two batches with the same ids claim them in the same order and
/// never wait for each other in a circle.
///
/// A row is made as it is inserted; with unnest() after FROM all of them would be stored first.
const CLAIM: &str = "INSERT INTO pgmask.ledger (slot, message_id, taken_day)
    SELECT unnest($1), unnest($2), $3";

const CLAIM_NEW: &str = "INSERT INTO pgmask.ledger (slot, message_id, taken_day)
    SELECT unnest($1), unnest($2), $3
    ON CONFLICT DO NOTHING
    RETURNING slot, message_id";

/// Enters messages into the ledger; returns those that are new, in the order they came in, and how
/// many are not.
pub(super) fn claim(mut messages: Vec<Message<'_>>) -> Result<(Vec<Message<'_>>, i64), Error> {
    let given = messages.len();
    if given == 0 {
        return Ok((messages, 0));
    }
    standbys::wait_at_commit();
    messages.sort_by(|a, b| compare(a, &(b.slot, b.key)));
    messages.dedup_by(|b, a| compare(a, &(b.slot, b.key)).is_eq());

    // As a rule all are new, and not to ask which are takes half the time.
    let all = || plan::run(CLAIM, || keys(&messages), |_| Ok(()));
    if attempt(all, |failure| failure.sqlstate == *UNIQUE_VIOLATION).is_err() {
        let mut claimed = plan::rows(CLAIM_NEW, || keys(&messages), read_key)?;
        claimed.sort_unstable();
        let mut claimed = claimed.into_iter().peekable();
        messages.retain(|message| claimed.next_if(|key| compare(message, key).is_eq()).is_some());
        if claimed.next().is_some() {
            return Err(Error::Unreadable); // a key that was never given
        }
    }
    messages.sort_unstable_by_key(|message| message.place);
    let duplicate = (given - messages.len()) as i64;
    if duplicate > 0 {
        // Whoever took them in may not have waited for a synchronous standby (the connection was lost, for one): this commit
        // does, which comes later in the log. It has to be one of a transaction that writes.
        // SAFETY: a plain call.
        unsafe { pg_sys::GetTopTransactionId() };
    }
    Ok((messages, duplicate))
}

/// The arguments of both statements.
fn keys<'a>(messages: &[Message<'_>]) -> Vec<DatumWithOid<'a>> {
    let mut slots = ArrayBuilder::smallint();
    let mut keys = ArrayBuilder::uuid();
    for message in messages {
        slots.push_fixed(Some(message.slot.to_ne_bytes()));
        keys.push_fixed(Some(message.key));
    }
    vec![slots.finish(), keys.finish(), plan::date(clock::day_of(clock::now()))]
}

fn read_key(row: &plan::Row<'_>) -> Result<(Slot, MessageKey), Error> {
    Ok((row.get(1)?, *row.get::<Uuid>(2)?.as_bytes()))
}

fn compare(message: &Message<'_>, other: &(Slot, MessageKey)) -> Ordering {
    (message.slot, message.key).cmp(other)
}
