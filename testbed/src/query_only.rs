//! A strict SQS that knows the Query protocol alone (API version 2012-11-05) and answers AWS JSON as old
//! LocalStack does: HTTP 500, `{}`. One queue, in memory, in the process and runtime of its owner.
//!
//! `call` reads what is asked and lets no mistake pass, `signature` none in how it is signed,
//! `actions` does it, `store` holds the messages, `refusal` and `xml` are how it is answered.

mod actions;
mod call;
mod refusal;
mod signature;
mod store;
mod xml;

use crate::Result;
use call::Call;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::Store;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// What old servers do differently.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manners {
    /// Messages come without SentTimestamp and the like.
    pub no_attributes: bool,
    /// SentTimestamp is in seconds.
    pub seconds: bool,
    /// So many entries of delete batches fail, each once.
    pub failing_deletes: usize,
    /// So many calls of any kind are answered with HTTP 500 and `{}`.
    pub baffled_calls: usize,
}

/// The server, gone with its value.
#[derive(Debug)]
pub struct QueryOnly {
    address: SocketAddr,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    store: Mutex<Store>,
    manners: Mutex<Manners>,
    asked: Mutex<Vec<String>>,
}

/// Nothing that holds these locks can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl QueryOnly {
    /// Starts a server with an empty queue of this name.
    pub async fn start(queue_name: &str, manners: Manners) -> Result<Self> {
        let state = Arc::new(State {
            store: Mutex::new(Store::new(queue_name)),
            manners: Mutex::new(manners),
            asked: Mutex::default(),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(serve(listener, state.clone()));
        Ok(Self { address, state, serving })
    }

    /// Stops; connections are cut.
    pub async fn stop(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    /// Starts again after [`Self::stop`]; the messages are still there.
    pub async fn resume(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.serving = tokio::spawn(serve(listener, self.state.clone()));
        Ok(())
    }

    /// What `AWS_ENDPOINT_URL` has to say.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts messages into the queue.
    pub fn send(&self, bodies: &[String]) {
        let mut store = lock(&self.state.store);
        for body in bodies {
            store.send(body);
        }
    }

    /// How many messages are visible and in flight.
    pub fn depth(&self) -> [usize; 2] {
        lock(&self.state.store).depth()
    }

    /// What was asked so far: the name of each action, `json`, or `refused` for what is no call.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.state.asked).clone()
    }
}

impl Drop for QueryOnly {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new(); // aborted together with this task
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let state = state.clone();
                async move { Ok::<_, Infallible>(answer(&state, request).await) }
            });
            let stream = TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
        });
    }
}

async fn answer(state: &State, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return xml(400, String::new()); // nobody is there to read it
    };
    let is_json = head.headers.contains_key("x-amz-target");
    let call = Call::read(&head, &body.to_bytes());
    let asked = match &call {
        _ if is_json => "json",
        Ok(call) => &call.action,
        Err(_) => "refused",
    };
    lock(&state.asked).push(asked.to_owned());
    if is_json || baffled(state) {
        return response(500, "text/html; charset=utf-8", "{}".to_owned());
    }
    let answered = match call {
        Ok(call) => actions::answer(state, call).await,
        Err(refusal) => Err(refusal),
    };
    match answered {
        Ok(document) => xml(200, document),
        Err(refusal) => xml(refusal.status, refusal.document()),
    }
}

fn baffled(state: &State) -> bool {
    let mut manners = lock(&state.manners);
    let baffled = manners.baffled_calls > 0;
    manners.baffled_calls = manners.baffled_calls.saturating_sub(1);
    baffled
}

fn xml(status: u16, document: String) -> Response<Full<Bytes>> {
    response(status, "text/xml", document)
}

fn response(status: u16, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
    response
}
