//! Metrics and health, served over HTTP where somebody listens: `/metrics` in Prometheus' text format,
//! `/healthz` while the process is alive, `/readyz` while it can reach both ends.

use super::summary::Tally;
use crate::config::Config;
use crate::database::Database;
use crate::error::Error;
use crate::pipeline::Shared;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::convert::Infallible;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

/// Whoever asks more often than this gets the answer from before: each look costs a connection.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// An end that takes longer to answer is not ready.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most connections at once: monitoring needs few.
const CONNECTIONS: usize = 16;

/// What is served, if anything is.
pub(crate) struct Metrics(Option<Arc<Served>>);

struct Served {
    registry: Registry,
    in_flight_messages: Gauge,
    in_flight_bytes: Gauge,
    /// Known once both ends were reached.
    shared: OnceLock<Weak<Shared>>,
    stopping: CancellationToken,
    looked: Mutex<Option<(Instant, Ready)>>,
}

/// Ready, or why not.
type Ready = Result<(), String>;

/// Listens, if told to.
pub(crate) async fn serve(
    config: &Config,
    tally: Arc<Tally>,
    stopping: CancellationToken,
) -> Result<Metrics, Error> {
    let Some(address) = config.metrics_listen else { return Ok(Metrics(None)) };
    let listener = TcpListener::bind(address).await.map_err(|error| Error::SetUp {
        what: format!("can't listen on {address} for metrics: {error}. Check --metrics-listen."),
    })?;
    let mut registry = Registry::with_prefix("forwarder");
    tally.register(&mut registry);
    let (in_flight_messages, in_flight_bytes) = (Gauge::default(), Gauge::default());
    let help = "Messages received and not yet settled";
    registry.register("in_flight_messages", help, in_flight_messages.clone());
    let help = "Bytes of the bodies of messages received and not yet settled";
    registry.register_with_unit("in_flight", help, Unit::Bytes, in_flight_bytes.clone());
    let served = Arc::new(Served {
        registry,
        in_flight_messages,
        in_flight_bytes,
        shared: OnceLock::new(),
        stopping,
        looked: Mutex::default(),
    });
    tokio::spawn(accept(listener, served.clone()));
    Ok(Metrics(Some(served)))
}

impl Metrics {
    /// Both ends were reached: from now on there is something to look at.
    pub(crate) fn ready(&self, shared: &Arc<Shared>) {
        if let Some(served) = &self.0 {
            let _ = served.shared.set(Arc::downgrade(shared));
        }
    }
}

async fn accept(listener: TcpListener, served: Arc<Served>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = connections.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await; // no file descriptors left, perhaps
            continue;
        };
        let served = served.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(&served, request));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            let _ = http.serve_connection(TokioIo::new(stream), answer).await;
            drop(place);
        });
    }
}

async fn answer(served: &Served, request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let (status, kind, text) = match request.uri().path() {
        "/metrics" => {
            (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", served.metrics())
        }
        "/healthz" => (StatusCode::OK, "text/plain; charset=utf-8", "alive\n".to_owned()),
        "/readyz" => match served.ready().await {
            Ok(()) => (StatusCode::OK, "text/plain; charset=utf-8", "ready\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", why + "\n"),
        },
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "here are /metrics, /healthz, /readyz\n".to_owned(),
        ),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    Ok(response)
}

impl Served {
    fn metrics(&self) -> String {
        let (messages, bytes) =
            self.shared.get().and_then(Weak::upgrade).map_or((0, 0), |shared| shared.held.size());
        self.in_flight_messages.set(messages as i64);
        self.in_flight_bytes.set(bytes as i64);
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    async fn ready(&self) -> Ready {
        if self.stopping.is_cancelled() {
            return Err("stopping".to_owned());
        }
        let mut looked = self.looked.lock().await;
        if let Some((at, ready)) = &*looked
            && at.elapsed() < LOOK_AGAIN_AFTER
        {
            return ready.clone();
        }
        let ready = self.look().await;
        *looked = Some((Instant::now(), ready.clone()));
        ready
    }

    async fn look(&self) -> Ready {
        let Some(shared) = self.shared.get().and_then(Weak::upgrade) else {
            return Err("the queue and the database have not been reached yet".to_owned());
        };
        // It gives up by itself, so that it leaves nothing behind at the server.
        let database = Database::open_within(&shared.connection, PATIENCE);
        let both = async { tokio::try_join!(shared.queue.depth(), database) };
        match tokio::time::timeout(2 * PATIENCE, both).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the queue or the database gave no answer within {PATIENCE:?}")),
        }
    }
}
