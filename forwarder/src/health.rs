//! `forwarder health`: asks a running forwarder whether it is ready, for the health checks of containers.

use crate::config::{Config, Health};
use crate::error::{Error, Kind};
use metrics_server::Probe;
use std::io::Write;

/// Asks the forwarder that listens at `--metrics-listen`, and prints its answer.
pub(crate) fn ask(config: &Config, health: Health) -> Result<(), Error> {
    let Some(address) = config.metrics_listen else {
        let text = "no address is given where the forwarder serves its health";
        return Err(Error::new(Kind::SetUp, None, text)
            .with_hint("Give it --metrics-listen (FORWARDER_METRICS_LISTEN), and this command the same."));
    };
    let probe = if health.alive { Probe::Alive } else { Probe::Ready };
    let answer = metrics_server::ask(address, probe).map_err(|error| {
        Error::new(Kind::Transient, None, format!("no forwarder answers: {error}")).caused_by(error)
    })?;
    if !answer.ok {
        let text = format!("the forwarder is not ready: {}", answer.text.trim_end());
        return Err(Error::new(Kind::Transient, None, text));
    }
    let _ = write!(std::io::stdout(), "{}", answer.text);
    Ok(())
}
