//! Metrics and health over HTTP: `/metrics` for Prometheus, `/healthz` while the process is alive, `/readyz`
//! while both ends answer.

use super::tally::Tally;
use crate::config::Config;
use crate::database::Pool;
use crate::error::{Error, Kind};
use crate::in_flight::InFlight;
use crate::queue::Queue;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Within this time `/readyz` gives the answer from before.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// An end that takes longer to answer is not ready.
const PATIENCE: Duration = Duration::from_secs(5);
/// The content type of everything but metrics.
const TEXT: &str = "text/plain; charset=utf-8";
/// The most connections at once, and how long one may last: a look at both ends takes the longest.
const CONNECTIONS: usize = 16;
const CONNECTION: Duration = Duration::from_secs(20);
/// The most bytes of a request's head.
const MOST_HEADERS: usize = 16 << 10;

/// What is served, if anything is.
pub(crate) struct Metrics(Option<Arc<Served>>);

/// Both ends, which `/readyz` asks.
pub(crate) struct Ends {
    pub(crate) queue: Queue,
    pub(crate) pool: Arc<Pool>,
}

struct Served {
    registry: Registry,
    in_flight: Arc<InFlight>,
    in_flight_messages: Gauge,
    in_flight_bytes: Gauge,
    /// Set once both ends were reached.
    ends: OnceLock<Ends>,
    stopping: CancellationToken,
    looked: Mutex<Option<(Instant, Ready)>>,
}

/// Ready, or why not.
type Ready = Result<(), String>;

/// Listens, if told to.
pub(crate) async fn serve(
    config: &Config,
    tally: Arc<Tally>,
    in_flight: Arc<InFlight>,
    stopping: CancellationToken,
) -> Result<Metrics, Error> {
    let Some(address) = config.metrics_listen else { return Ok(Metrics(None)) };
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let text = format!("can't listen on {address} for metrics: {error}");
        Error::new(Kind::SetUp, None, text).with_hint("Check --metrics-listen.").caused_by(error)
    })?;
    let mut registry = Registry::with_prefix("pg_mask_forwarder");
    tally.register(&mut registry);
    let (in_flight_messages, in_flight_bytes) = (Gauge::default(), Gauge::default());
    let help = "Messages received and not yet settled";
    registry.register("in_flight_messages", help, in_flight_messages.clone());
    let help = "Bytes of the bodies of messages received and not yet settled";
    registry.register_with_unit("in_flight", help, Unit::Bytes, in_flight_bytes.clone());
    let served = Arc::new(Served {
        registry,
        in_flight,
        in_flight_messages,
        in_flight_bytes,
        ends: OnceLock::new(),
        stopping,
        looked: Mutex::default(),
    });
    tokio::spawn(accept(listener, served.clone()));
    Ok(Metrics(Some(served)))
}

impl Metrics {
    /// Both ends were reached: from now on `/readyz` asks them.
    pub(crate) fn connected(&self, ends: Ends) {
        if let Some(served) = &self.0 {
            let _ = served.ends.set(ends);
        }
    }
}

/// One request a connection, within a time. When there are too many, the oldest is closed: a client that
/// sends and never reads can't keep others from an answer.
async fn accept(listener: TcpListener, served: Arc<Served>) {
    let mut connections = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await; // no file descriptors left, perhaps
            continue;
        };
        let served = served.clone();
        let serve = async move {
            let answer = service_fn(|request| answer(&served, request));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).keep_alive(false).max_buf_size(MOST_HEADERS);
            let _ = timeout(CONNECTION, http.serve_connection(TokioIo::new(stream), answer)).await;
        };
        connections.retain(|connection: &AbortOnDropHandle<()>| !connection.is_finished());
        if connections.len() == CONNECTIONS {
            connections.pop_front();
        }
        connections.push_back(AbortOnDropHandle::new(tokio::spawn(serve)));
    }
}

async fn answer(served: &Served, request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let (status, kind, text) = match request.uri().path() {
        "/metrics" => {
            let (kind, text) = served.metrics(request.headers().get(ACCEPT));
            (StatusCode::OK, kind, text)
        }
        "/healthz" => (StatusCode::OK, TEXT, "alive\n".to_owned()),
        "/readyz" => match served.ready().await {
            Ok(()) => (StatusCode::OK, TEXT, "ready\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, why + "\n"),
        },
        _ => (StatusCode::NOT_FOUND, TEXT, "here are /metrics, /healthz, /readyz\n".to_owned()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

impl Served {
    /// The metrics and their content type: in the OpenMetrics format if the client asks for it, else in
    /// Prometheus' text format.
    fn metrics(&self, accept: Option<&HeaderValue>) -> (&'static str, String) {
        let (messages, bytes) = self.in_flight.size();
        self.in_flight_messages.set(messages as i64);
        self.in_flight_bytes.set(bytes as i64);
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        let accept = accept.and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        if accept.contains("application/openmetrics-text") {
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
        } else {
            ("text/plain; version=0.0.4; charset=utf-8", in_text_format(&text))
        }
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
        let Some(ends) = self.ends.get() else {
            return Err("the queue and the database have not been reached yet".to_owned());
        };
        let both = async { tokio::try_join!(ends.queue.answers(), ends.pool.try_out(PATIENCE)) };
        match timeout(2 * PATIENCE, both).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the queue or the database gave no answer within {PATIENCE:?}")),
        }
    }
}

/// Metrics in the OpenMetrics format, turned into Prometheus' text format 0.0.4: there the metadata names a
/// counter with its suffix, and units and the end are not written.
fn in_text_format(openmetrics: &str) -> String {
    let counters: HashSet<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        let mut words = line.splitn(4, ' ');
        match [words.next(), words.next(), words.next(), words.next()] {
            [Some("#"), Some("UNIT" | "EOF"), ..] => continue,
            [Some("#"), Some(keyword), Some(name), Some(rest)] if counters.contains(name) => {
                text.push_str(&format!("# {keyword} {name}_total {rest}"));
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}
