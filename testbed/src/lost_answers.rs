//! A network that loses answers to receives, before a FIFO queue that gives what was lost once more.
//!
//! SQS remembers for five minutes what it gave to a `ReceiveRequestAttemptId`, and gives the same to a request with
//! the same id (SQS API reference, `ReceiveMessage`). LocalStack ignores the id, so this remembers in its place.

use crate::Result;
use crate::forbid::Request;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Passes calls on, but loses each answer to a receive that has messages, once; gone with its value.
#[derive(Debug)]
pub struct LostAnswers {
    port: u16,
    given: Given,
    task: JoinHandle<()>,
}

/// The answer to each attempt that had messages, and whether it has arrived.
type Given = Arc<Mutex<HashMap<String, (Vec<u8>, bool)>>>;

impl LostAnswers {
    /// Passes calls on to the port of `endpoint`.
    pub async fn before(endpoint: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let upstream = endpoint.strip_prefix("http://").ok_or("no http endpoint")?.to_owned();
        let given = Given::default();
        let remembered = given.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (upstream, given) = (upstream.clone(), remembered.clone());
                // A connection that breaks is the client's to notice.
                tokio::spawn(async move { serve(stream, &upstream, &given).await.ok() });
            }
        });
        Ok(Self { port, given, task })
    }

    /// What `AWS_ENDPOINT_URL` has to say.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many answers were lost, and how many of these were given once more.
    pub fn lost(&self) -> (usize, usize) {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        (given.len(), given.values().filter(|(_, arrived)| *arrived).count())
    }
}

impl Drop for LostAnswers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request a connection.
async fn serve(stream: TcpStream, upstream: &str, given: &Given) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let request = Request::read(&mut stream).await?;
    let attempt = match request.call.ends_with(".receivemessage") {
        true => serde_json::from_slice::<Value>(&request.body).unwrap_or_default()["ReceiveRequestAttemptId"]
            .as_str()
            .map(str::to_owned),
        false => None,
    };
    let before = attempt.as_ref().and_then(|attempt| {
        let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
        let (answer, arrived) = given.get_mut(attempt)?;
        *arrived = true;
        Some(answer.clone())
    });
    let answer = match before {
        Some(answer) => answer,
        None => {
            let mut answer = Vec::new();
            request.send(upstream).await?.read_to_end(&mut answer).await?;
            let has_messages = answer.windows(13).any(|part| part == b"ReceiptHandle");
            if let Some(attempt) = attempt.filter(|_| has_messages) {
                let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
                given.insert(attempt, (answer, false));
                return Ok(()); // lost
            }
            answer
        }
    };
    stream.write_all(&answer).await?;
    stream.shutdown().await
}
