//! The ledger: which messages were taken in. Claiming a message and storing what became of it are
//! one transaction, so a message has its effect exactly once, however often it is delivered.

use super::batch::{Message, MessageKey};
use crate::arrays::ArrayBuilder;
use crate::clock::{self, Day};
use crate::plan;
use pgrx::prelude::*;
use std::cmp::Ordering;

/// In the order of the arguments: two batches with the same ids claim them in the same order and
/// never wait for each other in a circle.
const CLAIM: &str = "INSERT INTO pg_mask.ledger (sent_day, message_id, taken_day)
    SELECT day, id, $3 FROM unnest($1, $2) AS claimed(day, id)
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

    let mut days = ArrayBuilder::date();
    let mut keys = ArrayBuilder::uuid();
    for message in &messages {
        days.push_fixed(Some(message.sent_day.to_ne_bytes()));
        keys.push_fixed(Some(message.key));
    }
    let today = clock::day_of(clock::now());
    let claimed = plan::run(
        CLAIM,
        || vec![days.finish(), keys.finish(), plan::date(today)],
        |rows| {
            if rows.len() == messages.len() {
                return None; // the usual case: all are new
            }
            let mut claimed: Vec<(Day, MessageKey)> = Vec::with_capacity(rows.len());
            for row in rows {
                let day = row.get::<Date>(1).ok().flatten();
                let id = row.get::<pgrx::Uuid>(2).ok().flatten();
                if let (Some(day), Some(id)) = (day, id) {
                    claimed.push((day.to_pg_epoch_days(), *id.as_bytes()));
                }
            }
            Some(claimed)
        },
    );
    if let Some(mut claimed) = claimed {
        claimed.sort_unstable();
        let mut claimed = claimed.into_iter().peekable();
        messages.retain(|message| claimed.next_if(|key| compare(message, key).is_eq()).is_some());
    }
    messages.sort_unstable_by_key(|message| message.place);
    let duplicate = (given - messages.len()) as i64;
    (messages, duplicate)
}

fn compare(message: &Message<'_>, other: &(Day, MessageKey)) -> Ordering {
    (message.sent_day, message.key).cmp(other)
}
