//! The forwarder's metrics and its readiness, which [`metrics_server`] serves.

use super::tally::Tally;
use crate::database::{self, Pool};
use crate::error::{Error, Kind};
use crate::queue::Queue;
use flow_control::InFlight;
use metrics_server::{Ready, Server};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// An end that takes longer to answer is not ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is served, if anything is, until this is dropped.
pub(crate) struct Metrics {
    ends: Ends,
    _server: Option<Server>,
}

/// Both ends, once they were reached.
type Ends = Arc<OnceLock<(Queue, Arc<Pool>)>>;

/// Listens, if an address is given.
pub(crate) async fn serve(
    address: Option<SocketAddr>,
    tally: &Tally,
    in_flight: Arc<InFlight>,
    stopping: CancellationToken,
) -> Result<Metrics, Error> {
    let ends = Ends::default();
    let Some(address) = address else { return Ok(Metrics { ends, _server: None }) };
    let mut registry = Registry::with_prefix("pg_mask_forwarder");
    tally.register(&mut registry);
    registry.register_collector(Box::new(Gauges(in_flight)));
    let looked_at = ends.clone();
    let server = metrics_server::serve(address, registry, stopping, move || look(looked_at.clone()));
    let server = server.await.map_err(|error| {
        let text = format!("the metrics can't be served: {error}");
        Error::new(Kind::SetUp, None, text).with_hint("Check --metrics-listen.").caused_by(error)
    })?;
    Ok(Metrics { ends, _server: Some(server) })
}

impl Metrics {
    /// Both ends were reached: from now on they are asked whether they are ready.
    pub(crate) fn connected(&self, queue: Queue, pool: Arc<Pool>) {
        let _ = self.ends.set((queue, pool));
    }
}

/// Whether both ends answer, or why not.
async fn look(ends: Ends) -> Ready {
    let Some((queue, pool)) = ends.get() else {
        return Err("the queue and the database have not been reached yet".to_owned());
    };
    let both = async { tokio::try_join!(queue.answers(), database::try_out(pool, PATIENCE)) };
    match timeout(2 * PATIENCE, both).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the queue or the database gave no answer within {PATIENCE:?}")),
    }
}

/// What is in flight, read when it is asked for.
#[derive(Debug)]
struct Gauges(Arc<InFlight>);

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (messages, bytes) = self.0.size();
        for (name, help, unit, number) in [
            ("in_flight_messages", "Messages received and not yet settled", None, messages),
            (
                "in_flight",
                "Bytes of the bodies of messages received and not yet settled",
                Some(Unit::Bytes),
                bytes,
            ),
        ] {
            let gauge = ConstGauge::new(number as i64);
            gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?)?;
        }
        Ok(())
    }
}
