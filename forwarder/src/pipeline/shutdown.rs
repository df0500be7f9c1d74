//! Signals: the first asks the forwarder to stop, a later one ends it at once.

use crate::error::{Error, Kind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Process managers and terminals may deliver one signal twice: within this time it is the same one.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// What comes after the grace time, releasing above all, takes less than this.
const RELEASED_WITHIN: Duration = Duration::from_secs(15);

/// Moments that the parts of the pipeline can wait for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// Receive no more; store and delete what is in flight.
    pub(crate) stop_receiving: CancellationToken,
    /// Time is up: make visible again what is in flight.
    pub(crate) release_now: CancellationToken,
    /// Leave everything as it is, and exit.
    pub(crate) exit_now: CancellationToken,
    /// The later signal.
    ended_by: Arc<OnceLock<SignalKind>>,
}

impl Stop {
    /// Why everything was left as it is.
    pub(crate) fn error(&self) -> Error {
        let Some(signal) = self.ended_by.get() else {
            let text = "the forwarder did not end in time: this is a bug. What it held comes again after the visibility timeout";
            return Error::new(Kind::Defect, None, text);
        };
        let text = "ended by a second signal; what was in flight comes again after the visibility timeout";
        Error::new(Kind::Signal(signal.as_raw_value()), None, text)
    }
}

/// Listens for SIGTERM and SIGINT. Storing and deleting may last for `grace` after receiving has stopped.
pub(crate) fn on_signal(grace: Duration) -> Result<Stop, Error> {
    let stop = Stop::default();
    let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
    let (mut terminated, mut interrupted) = (listen(terminate)?, listen(interrupt)?);
    let asked = stop.clone();
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            let kind = tokio::select! {
                _ = terminated.recv() => terminate,
                _ = interrupted.recv() => interrupt,
            };
            match first {
                None => {
                    tracing::info!("asked to stop: receiving no more, settling what is held");
                    first = Some(Instant::now());
                    asked.stop_receiving.cancel();
                }
                Some(first) if first.elapsed() < SAME_SIGNAL => {}
                Some(_) => {
                    let _ = asked.ended_by.set(kind);
                    asked.exit_now.cancel();
                }
            }
        }
    });
    let stopped = stop.clone();
    tokio::spawn(async move {
        stopped.stop_receiving.cancelled().await;
        sleep(grace).await;
        stopped.release_now.cancel();
        sleep(RELEASED_WITHIN).await;
        stopped.exit_now.cancel();
    });
    Ok(stop)
}

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|error| {
        let text = format!("cannot set up the signal handlers: {error}");
        Error::new(Kind::SetUp, None, text).caused_by(error)
    })
}
