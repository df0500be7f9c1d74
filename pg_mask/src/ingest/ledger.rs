//! The ledger: which messages were taken in. Claiming a message and storing what became of it are
//! one transaction, so a message has its effect exactly once, however often it is delivered.

use super::batch::{Message, MessageKey};
use crate::arrays::ArrayBuilder;
use crate::clock::{self, Day};
use crate::plan;
use crate::subtransaction::attempt;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{SpiHeapTupleData, SpiTupleTable};
use std::cmp::Ordering;

const UNIQUE_VIOLATION: &[u8; 5] = b"23505";

/// In the order of the arguments: two batches with the same ids claim them in the same order and
/// never wait for each other in a circle.
///
/// A row is made as it is inserted; with unnest() after FROM all of them would be stored first.
const CLAIM: &str = "INSERT INTO pgmask.ledger (sent_day, message_id, taken_day)
    SELECT unnest($1), unnest($2), $3";

const CLAIM_NEW: &str = "INSERT INTO pgmask.ledger (sent_day, message_id, taken_day)
    SELECT unnest($1), unnest($2), $3
    ON CONFLICT DO NOTHING
    RETURNING sent_day, message_id";

/// Enters messages into the ledger; returns those that are new, in the order they came in, and how
/// many are not.
pub(super) fn claim(mut messages: Vec<Message<'_>>) -> (Vec<Message<'_>>, i64) {
    let given = messages.len();
    if given == 0 {
        return (messages, 0);
    }
    messages.sort_by(|a, b| compare(a, &(b.sent_day, b.key)));
    messages.dedup_by(|b, a| compare(a, &(b.sent_day, b.key)).is_eq());

    // As a rule all are new, and not to ask which are takes half the time.
    let all = || plan::run(CLAIM, || keys(&messages), |_| ());
    if attempt(all, |failure| failure.sqlstate == *UNIQUE_VIOLATION).is_err() {
        let mut claimed = plan::run(CLAIM_NEW, || keys(&messages), read_keys);
        claimed.sort_unstable();
        let mut claimed = claimed.into_iter().peekable();
        messages.retain(|message| claimed.next_if(|key| compare(message, key).is_eq()).is_some());
    }
    messages.sort_unstable_by_key(|message| message.place);
    let duplicate = (given - messages.len()) as i64;
    (messages, duplicate)
}

/// The arguments of both statements.
fn keys<'a>(messages: &[Message<'_>]) -> Vec<DatumWithOid<'a>> {
    let mut days = ArrayBuilder::date();
    let mut keys = ArrayBuilder::uuid();
    for message in messages {
        days.push_fixed(Some(message.sent_day.to_ne_bytes()));
        keys.push_fixed(Some(message.key));
    }
    vec![days.finish(), keys.finish(), plan::date(clock::day_of(clock::now()))]
}

fn read_keys(rows: SpiTupleTable<'_>) -> Vec<(Day, MessageKey)> {
    let key = |row: SpiHeapTupleData<'_>| {
        let day = row.get::<Date>(1).ok()??;
        let id = row.get::<pgrx::Uuid>(2).ok()??;
        Some((day.to_pg_epoch_days(), *id.as_bytes()))
    };
    rows.filter_map(key).collect()
}

fn compare(message: &Message<'_>, other: &(Day, MessageKey)) -> Ordering {
    (message.sent_day, message.key).cmp(other)
}
