//! Giving back: what could not be settled in time is made visible again at the end, so that another
//! forwarder can have it at once. Not before nobody here receives or renews any more.

use super::delete::tens;
use super::shared::Shared;
use crate::message::Message;
use crate::queue::Settled;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How many calls are under way at once. On a FIFO queue one, for the sake of the order.
const CALLS: usize = 16;
/// After this the messages become visible by themselves soon enough.
const PATIENCE: Duration = Duration::from_secs(5);

/// A long poll that is left over takes what it can get sooner than this.
const QUIET: Duration = Duration::from_millis(500);

/// Makes visible again what was given back, also by long polls that are left over: these take what was
/// made visible, each once, so this has an end.
pub(crate) async fn run(shared: &Arc<Shared>) {
    shared.left_over.close();
    let all = async {
        loop {
            let messages = shared.take_back();
            if messages.is_empty() {
                return;
            }
            release_all(shared, messages).await;
            let _ = tokio::time::timeout(QUIET, shared.left_over.wait()).await;
        }
    };
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        tracing::warn!("some messages were not made visible again; they are after the visibility time-out");
    }
}

async fn release_all(shared: &Arc<Shared>, messages: Vec<Message>) {
    let calls = if shared.queue.is_fifo() { 1 } else { CALLS };
    let mut under_way = JoinSet::new();
    for ten in tens(messages) {
        if under_way.len() == calls {
            under_way.join_next().await;
        }
        under_way.spawn(release(shared.clone(), ten));
    }
    under_way.join_all().await;
}

async fn release(shared: Arc<Shared>, messages: Vec<Message>) {
    let handles: Vec<&str> = messages.iter().map(|message| &*message.receipt_handle).collect();
    match shared.queue.hide(&handles, Duration::ZERO).await {
        Ok(settled) => {
            let released = settled.iter().filter(|settled| **settled == Settled::Done).count();
            shared.tally.released.inc_by(released as u64);
        }
        Err(error) => shared.reports.waiting_out(&error),
    }
}
