//! The forwarder's metrics and its readiness, which [`metrics_server`] serves. Both ends are looked at every few
//! seconds, and when somebody asks whether the forwarder is ready; what is found then are gauges, too.

use super::tally::Tally;
use crate::database::{self, Pool};
use crate::error::{Error, Kind};
use crate::queue::{Queue, STATES};
use flow_control::{InFlight, Limiter};
use metrics_server::{Ready, Server, register_gauge};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// An end that takes longer to answer is not ready.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often both ends are looked at: a call to the queue, and an empty batch.
const LOOK: Duration = Duration::from_secs(15);

/// What is served, until this is dropped.
pub(crate) struct Metrics {
    ends: Arc<Ends>,
    _server: Server,
}

/// Both ends, once they were reached, and how they are.
#[derive(Default)]
struct Ends {
    reached: OnceLock<(Queue, Arc<Pool>)>,
    queue_up: Gauge,
    database_up: Gauge,
    /// By state. Empty while the queue does not answer.
    queue_messages: Family<[(&'static str, &'static str); 1], Gauge>,
}

/// Listens at this address.
pub(crate) async fn serve(
    address: SocketAddr,
    tally: &Tally,
    in_flight: Arc<InFlight>,
    limiter: Arc<Limiter>,
    stopping: CancellationToken,
) -> Result<Metrics, Error> {
    let mut registry = Registry::with_prefix("pg_mask_forwarder");
    let version: Family<[(&str, &str); 1], Gauge> = Family::default();
    version.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
    registry.register("build_info", "Which version this is", version);
    tally.register(&mut registry);
    let (held, oldest) = (in_flight.clone(), in_flight.clone());
    let help = "Messages received and not yet settled";
    register_gauge(&mut registry, "in_flight_messages", help, None, move || held.size().0);
    let help = "Bytes of the bodies of messages received and not yet settled";
    register_gauge(&mut registry, "in_flight", help, Some(Unit::Bytes), move || in_flight.size().1);
    let help = "Age of the oldest message received and not yet settled, 0 without one";
    register_gauge(&mut registry, "oldest_message_age", help, Some(Unit::Seconds), move || {
        let age = oldest.oldest().and_then(|sent_at| SystemTime::now().duration_since(sent_at).ok());
        age.unwrap_or_default().as_secs_f64()
    });
    let help = "Receivers that may be at work now";
    register_gauge(&mut registry, "receivers", help, None, move || limiter.at_work());
    let ends = Arc::<Ends>::default();
    let help = "Messages that the queue has, roughly, by state: visible, in_flight, delayed";
    registry.register("queue_messages", help, ends.queue_messages.clone());
    registry.register("queue_up", "Whether the queue answers", ends.queue_up.clone());
    registry.register("database_up", "Whether batches are taken in", ends.database_up.clone());
    let looked_at = ends.clone();
    let server = metrics_server::serve(address, registry, stopping, move || look(looked_at.clone()));
    let server = server.await.map_err(|error| {
        let text = format!("the metrics can't be served: {error}");
        Error::new(Kind::SetUp, None, text).with_hint("Check --metrics-listen.").caused_by(error)
    })?;
    Ok(Metrics { ends, _server: server })
}

impl Metrics {
    /// Both ends were reached: from now on they are looked at, until the result is dropped.
    pub(crate) fn connected(&self, queue: Queue, pool: Arc<Pool>) -> AbortOnDropHandle<()> {
        let _ = self.ends.reached.set((queue, pool));
        let ends = self.ends.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let _ = look(ends.clone()).await;
                sleep(LOOK).await;
            }
        }))
    }
}

/// Whether both ends answer, or why not.
async fn look(ends: Arc<Ends>) -> Ready {
    let Some((queue, pool)) = ends.reached.get() else {
        return Err("the queue and the database have not been reached yet".to_owned());
    };
    let (queue, database) =
        tokio::join!(within(queue.counts()), within(database::try_out(pool, PATIENCE / 2)));
    ends.queue_up.set(queue.is_ok().into());
    ends.database_up.set(database.is_ok().into());
    match &queue {
        Ok(counts) => {
            for ((state, _), number) in STATES.iter().zip(counts) {
                let gauge = || ends.queue_messages.get_or_create(&[("state", *state)]);
                number.map(|number| gauge().set(number as i64));
            }
        }
        Err(_) => ends.queue_messages.clear(),
    }
    queue.and(database)
}

async fn within<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the queue or the database gave no answer within {PATIENCE:?}")),
    }
}
