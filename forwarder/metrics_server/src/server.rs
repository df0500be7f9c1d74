//! The server: one request a connection, a few connections at once, and a bound on the time of each.

use crate::Error;
use crate::text_format::in_text_format;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Within this time `/readyz` gives the answer from before.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The content type of everything but metrics.
const TEXT: &str = "text/plain; charset=utf-8";
/// The most connections at once.
const CONNECTIONS: usize = 16;
/// How long a connection may last. A look at readiness may take most of it.
const CONNECTION: Duration = Duration::from_secs(20);
/// The most bytes of a request's head.
const LONGEST_HEAD: usize = 16 << 10;

/// Ready, or why not.
pub type Ready = Result<(), String>;

/// A server, until this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

struct Served<R> {
    registry: Registry,
    stopping: CancellationToken,
    ready: R,
    /// When readiness was last looked at, and what was seen.
    looked: Mutex<Option<(Instant, Ready)>>,
}

/// Serves metrics and health at this address. `/readyz` calls `ready`, every few seconds at most; a program
/// that is stopping is not ready. A look should take 15 s at most.
pub async fn serve<R, F>(
    address: SocketAddr,
    registry: Registry,
    stopping: CancellationToken,
    ready: R,
) -> Result<Server, Error>
where
    R: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Ready> + Send + 'static,
{
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| Error::Listen { address, source })?;
    let address = listener.local_addr().unwrap_or(address);
    let served = Served { registry, stopping, ready, looked: Mutex::default() };
    let task = tokio::spawn(accept(listener, Arc::new(served)));
    Ok(Server { address, _task: AbortOnDropHandle::new(task) })
}

/// When there are too many connections, the oldest is closed: a client that sends and never reads can't keep
/// others from an answer.
async fn accept<R, F>(listener: TcpListener, served: Arc<Served<R>>)
where
    R: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Ready> + Send + 'static,
{
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
            http.timer(TokioTimer::new()).keep_alive(false).max_buf_size(LONGEST_HEAD);
            let _ = timeout(CONNECTION, http.serve_connection(TokioIo::new(stream), answer)).await;
        };
        connections.retain(|connection: &AbortOnDropHandle<()>| !connection.is_finished());
        if connections.len() == CONNECTIONS {
            connections.pop_front();
        }
        connections.push_back(AbortOnDropHandle::new(tokio::spawn(serve)));
    }
}

async fn answer<R, F>(served: &Served<R>, request: Request<Incoming>) -> Result<Response<String>, Infallible>
where
    R: Fn() -> F,
    F: Future<Output = Ready>,
{
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

impl<R, F> Served<R>
where
    R: Fn() -> F,
    F: Future<Output = Ready>,
{
    /// The metrics and their content type.
    fn metrics(&self, accept: Option<&HeaderValue>) -> (&'static str, String) {
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
        let ready = (self.ready)().await;
        *looked = Some((Instant::now(), ready.clone()));
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Probe, ask};
    use prometheus_client::metrics::counter::Counter;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    async fn server(stopping: &CancellationToken, ready: &'static str) -> (Server, Arc<AtomicUsize>) {
        let requests: Counter = Counter::default();
        requests.inc_by(7);
        let mut registry = Registry::with_prefix("program");
        registry.register("requests", "Requests", requests);
        let looks = Arc::new(AtomicUsize::new(0));
        let looked = looks.clone();
        let look = move || {
            looked.fetch_add(1, Relaxed);
            std::future::ready(if ready.is_empty() { Ok(()) } else { Err(ready.to_owned()) })
        };
        let server = serve(([127, 0, 0, 1], 0).into(), registry, stopping.clone(), look).await.unwrap();
        (server, looks)
    }

    fn get(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn answer(ok: bool, text: &str) -> Answer {
        Answer { ok, text: text.to_owned() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn probes_say_what_is_and_readiness_is_looked_at_once_in_a_while() {
        let stopping = CancellationToken::new();
        let (server, looks) = server(&stopping, "the database is away").await;
        assert_eq!(ask(server.address(), Probe::Alive).unwrap(), answer(true, "alive\n"));
        for _ in 0..3 {
            let asked = ask(server.address(), Probe::Ready).unwrap();
            assert_eq!(asked, answer(false, "the database is away\n"));
        }
        assert_eq!(looks.load(Relaxed), 1);
        stopping.cancel();
        assert_eq!(ask(server.address(), Probe::Ready).unwrap(), answer(false, "stopping\n"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_accept_header_decides_the_format() {
        let (server, _) = server(&CancellationToken::new(), "").await;
        let page = get(&server, "GET /metrics HTTP/1.0\r\n\r\n");
        assert!(page.contains("text/plain; version=0.0.4") && page.ends_with("program_requests_total 7\n"));
        let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        let page = get(&server, &format!("GET /metrics HTTP/1.0\r\n{accept}\r\n\r\n"));
        assert!(page.contains("application/openmetrics-text; version=1.0.0") && page.ends_with("# EOF\n"));
        assert!(get(&server, "GET /else HTTP/1.0\r\n\r\n").contains("404"));
        assert_eq!(ask(server.address(), Probe::Ready).unwrap(), answer(true, "ready\n"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn silent_clients_keep_nobody_out() {
        let (server, _) = server(&CancellationToken::new(), "").await;
        let silent: Vec<_> =
            (0..4 * CONNECTIONS).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
        assert_eq!(ask(server.address(), Probe::Alive).unwrap(), answer(true, "alive\n"));
        drop(silent);
    }

    #[tokio::test]
    async fn an_address_that_is_taken_or_silent_is_named() {
        let (first, _) = server(&CancellationToken::new(), "").await;
        let address = first.address();
        let second =
            serve(address, Registry::default(), CancellationToken::new(), || std::future::ready(Ok(())));
        let error = second.await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = ask(port, Probe::Alive).unwrap_err().to_string();
        assert!(error.contains(&port.to_string()), "{error}");
    }
}
