//! When to stop: a signal asks for it, a second one does not wait.

use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Three moments that every part of the pipeline can wait for.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    /// Receive no more; settle what is held.
    pub(crate) receiving: CancellationToken,
    /// Time is up: give back what is held.
    pub(crate) settling: CancellationToken,
    /// Leave everything as it is.
    pub(crate) everything: CancellationToken,
}

/// Listens for SIGTERM and SIGINT. The first stops receiving at once and settling after `grace`; a
/// second stops both.
pub(crate) fn on_signal(grace: Duration) -> Result<Stop, std::io::Error> {
    let stop = Stop {
        receiving: CancellationToken::new(),
        settling: CancellationToken::new(),
        everything: CancellationToken::new(),
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop: receiving no more, settling what is held");
        asked.receiving.cancel();
        let time_is_up = async {
            tokio::time::sleep(grace).await;
            asked.settling.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = time_is_up => {}
        }
        asked.everything.cancel();
    });
    Ok(stop)
}
