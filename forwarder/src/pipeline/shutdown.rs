//! Signals: the first asks the forwarder to stop, a second one ends it at once.

use crate::error::{Error, Kind};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Three moments that the parts of the pipeline can wait for.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    /// Receive no more, and settle what is in flight.
    pub(crate) receiving: CancellationToken,
    /// Time is up: release what is in flight.
    pub(crate) settling: CancellationToken,
    /// Leave everything as it is.
    pub(crate) everything: CancellationToken,
}

/// Listens for SIGTERM and SIGINT. The first stops receiving at once and settling after `grace`; a
/// second stops both.
pub(crate) fn on_signal(grace: Duration) -> Result<Stop, Error> {
    let stop = Stop {
        receiving: CancellationToken::new(),
        settling: CancellationToken::new(),
        everything: CancellationToken::new(),
    };
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
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

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|error| {
        Error::new(Kind::SetUp, None, format!("cannot set up the signal handlers: {error}")).caused_by(error)
    })
}
