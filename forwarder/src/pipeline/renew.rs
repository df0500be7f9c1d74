//! Renewing: what is held stays hidden from other receivers, however long the database takes.

use super::held::Due;
use super::shared::Shared;
use crate::queue::{CALL_MESSAGES, Settled};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many calls are under way at once.
const CALLS: usize = 16;
/// How often to look, at most and at least.
const LOOK: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);

/// Renews the visibility of everything held at half of its time-out, for as long as it is polled.
pub(crate) async fn run(shared: Arc<Shared>) {
    let hidden = shared.queue.visibility_timeout();
    loop {
        // Often enough to be in time after a look that came just too early, and after a failure.
        tokio::time::sleep((hidden / 16).clamp(*LOOK.start(), *LOOK.end())).await;
        let due = shared.held.due(Instant::now(), hidden);
        let mut calls = JoinSet::new();
        for ten in tens(due) {
            if calls.len() == CALLS {
                calls.join_next().await;
            }
            calls.spawn(renew(shared.clone(), ten, hidden));
        }
        calls.join_all().await;
    }
}

/// What fails for now is still due at the next look.
async fn renew(shared: Arc<Shared>, due: Vec<Due>, hidden: Duration) {
    let now = Instant::now();
    let handles: Vec<&str> = due.iter().map(|due| &*due.receipt_handle).collect();
    match shared.queue.hide(&handles, hidden).await {
        Ok(settled) => {
            let those = |wanted| {
                due.iter().zip(&settled).filter(move |(_, settled)| **settled == wanted).map(|(due, _)| due)
            };
            shared.held.renewed(those(Settled::Done), now, hidden);
            shared.held.lost(those(Settled::Lost));
        }
        Err(error) => shared.reports.waiting_out(&error),
    }
}

fn tens(mut due: Vec<Due>) -> impl Iterator<Item = Vec<Due>> {
    std::iter::from_fn(move || {
        let ten: Vec<Due> = due.drain(..due.len().min(CALL_MESSAGES)).collect();
        (!ten.is_empty()).then_some(ten)
    })
}
