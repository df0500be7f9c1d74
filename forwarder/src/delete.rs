//! The end of a message: deleted once its row is durable, or made visible again.

use crate::message::Message;
use crate::queue::CALL_MESSAGES;
use crate::retry::Backoff;
use crate::shared::Shared;
use std::sync::Arc;
use std::time::Duration;

/// After this the messages become visible by themselves soon enough.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// Deletes a committed batch, ten messages at a time, all at once and in the background.
pub(crate) fn spawn(shared: &Arc<Shared>, batch: Vec<Message>) {
    for ten in tens(batch) {
        shared.deletes.spawn(delete(shared.clone(), ten));
    }
}

/// Tries until all are gone. A message that can't be deleted comes again, and is a duplicate then.
async fn delete(shared: Arc<Shared>, mut messages: Vec<Message>) {
    let mut backoff = Backoff::default();
    while !messages.is_empty() {
        let handles: Vec<&str> = messages.iter().map(|message| message.receipt_handle.as_str()).collect();
        let deleted = tokio::select! {
            deleted = shared.queue.delete(&handles) => deleted,
            () = shared.stop.settling.cancelled() => return,
        };
        match deleted {
            Ok(deleted) => {
                let gone = deleted.iter().filter(|gone| **gone).count();
                shared.tally.deleted(gone);
                shared.progress.done(gone);
                let mut deleted = deleted.into_iter();
                messages.retain(|_| !deleted.next().unwrap_or(false));
                if messages.is_empty() {
                    return;
                }
                tracing::warn!(
                    messages = messages.len(),
                    "the queue did not delete some messages; trying again"
                );
            }
            Err(error) => {
                if shared.ends_on(error) {
                    return;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = shared.stop.settling.cancelled() => return,
        }
    }
}

/// Makes messages visible again, so that another forwarder can have them at once.
pub(crate) async fn release(shared: &Shared, messages: Vec<Message>) {
    let all = async {
        for ten in tens(messages) {
            let handles: Vec<&str> = ten.iter().map(|message| message.receipt_handle.as_str()).collect();
            match shared.queue.release(&handles).await {
                Ok(released) => {
                    shared.tally.released(released.into_iter().filter(|released| *released).count());
                }
                Err(error) => shared.reports.waiting_out(&error),
            }
        }
    };
    if tokio::time::timeout(RELEASE_PATIENCE, all).await.is_err() {
        tracing::warn!("some messages were not made visible again; they are after the visibility time-out");
    }
}

fn tens(messages: Vec<Message>) -> impl Iterator<Item = Vec<Message>> {
    let mut messages = messages.into_iter();
    std::iter::from_fn(move || {
        let ten: Vec<Message> = messages.by_ref().take(CALL_MESSAGES).collect();
        (!ten.is_empty()).then_some(ten)
    })
}
