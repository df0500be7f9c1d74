//! The end of a message: deleted once its row is durable. Those that are not when time is up are given
//! back to the queue.

use super::retry::Backoff;
use super::shared::Shared;
use crate::message::Message;
use crate::queue::{CALL_MESSAGES, Settled};
use std::sync::Arc;

/// How many deletes are under way at once.
pub(crate) const CALLS: usize = 64;

/// Deletes a committed batch, ten messages at a time, all at once and in the background.
pub(crate) fn spawn(shared: &Arc<Shared>, batch: Vec<Message>) {
    for ten in tens(batch) {
        shared.deletes.spawn(delete(shared.clone(), ten));
    }
}

/// Tries until all are gone, or time is up. A message that can't be deleted comes again, and is a
/// duplicate then.
async fn delete(shared: Arc<Shared>, mut messages: Vec<Message>) {
    let settling = shared.stop.settling.clone();
    let mut backoff = Backoff::default();
    while !messages.is_empty() {
        if settling.run_until_cancelled(try_once(&shared, &mut messages)).await != Some(true) {
            return shared.give_back(messages);
        }
        if !messages.is_empty() {
            settling.run_until_cancelled(tokio::time::sleep(backoff.next())).await;
        }
    }
}

/// Keeps those that are worth trying again; `false` when it ends.
async fn try_once(shared: &Shared, messages: &mut Vec<Message>) -> bool {
    let handles: Vec<&str> = messages.iter().map(|message| &*message.receipt_handle).collect();
    let deleted = {
        let _turn = shared.delete_calls.acquire().await;
        // In a box: the SDK's calls are large, and many more wait for their turn than have it.
        Box::pin(shared.queue.delete(&handles)).await
    };
    let settled = match deleted {
        Ok(settled) => settled,
        Err(error) => {
            shared.tally.delete_failures.inc_by(messages.len() as u64);
            return !shared.ends_on(error);
        }
    };
    let count = |wanted| settled.iter().filter(|settled| **settled == wanted).count();
    let (deleted, failed, lost) = (count(Settled::Done), count(Settled::Failed), count(Settled::Lost));
    shared.tally.deleted.inc_by(deleted as u64);
    shared.progress.done(deleted);
    shared.tally.delete_failures.inc_by((failed + lost) as u64);
    if failed > 0 {
        shared.reports.once_in_a_while("the queue did not delete some messages; trying again");
    }
    if lost > 0 {
        shared.reports.once_in_a_while(
            "the queue did not delete some messages: their receipt handles have expired; they come again as duplicates",
        );
    }
    let mut settled = settled.into_iter();
    messages.retain(|_| settled.next() == Some(Settled::Failed));
    true
}

/// Messages, ten a call.
pub(crate) fn tens(messages: Vec<Message>) -> impl Iterator<Item = Vec<Message>> {
    let mut messages = messages.into_iter();
    std::iter::from_fn(move || {
        let ten: Vec<Message> = messages.by_ref().take(CALL_MESSAGES).collect();
        (!ten.is_empty()).then_some(ten)
    })
}
