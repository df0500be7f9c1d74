//! A queue's server as somebody sees it who may not call everything: emulators forbid nobody anything.

use crate::Result;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const REFUSAL: &str = r#"{"__type":"com.amazon.coral.service#AccessDeniedException","message":"User: arn:aws:iam::000000000000:user/forwarder is not authorized"}"#;

/// Passes calls on, but refuses one of them; gone with its value.
#[derive(Debug)]
pub struct Forbid {
    port: u16,
    task: JoinHandle<()>,
}

impl Forbid {
    /// Refuses `call` (`DeleteMessageBatch`, say) and passes all others on to the port of `endpoint`.
    pub async fn call(call: &str, endpoint: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let target = format!("AmazonSQS.{call}").to_lowercase();
        let upstream = endpoint.strip_prefix("http://").ok_or("no http endpoint")?.to_owned();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (target, upstream) = (target.clone(), upstream.clone());
                // A connection that breaks is the client's to notice.
                tokio::spawn(async move { serve(stream, &target, &upstream).await.ok() });
            }
        });
        Ok(Self { port, task })
    }

    /// What `AWS_ENDPOINT_URL` has to say.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Forbid {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request: its head without the empty line at the end, the call that it is for in lower case, and its body.
pub(crate) struct Request {
    head: String,
    pub(crate) call: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Reads one.
    pub(crate) async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Self> {
        let (mut head, mut length, mut call) = (String::new(), 0, String::new());
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if let Some(target) = lower.strip_prefix("x-amz-target:") {
                call = target.trim().to_owned();
            }
            if line == "\r\n" || line.is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok(Self { head, call, body })
    }

    /// Sends it to a server, which answers and closes the connection.
    pub(crate) async fn send(&self, upstream: &str) -> std::io::Result<TcpStream> {
        let mut server = TcpStream::connect(upstream).await?;
        server.write_all(format!("{}Connection: close\r\n\r\n", self.head).as_bytes()).await?;
        server.write_all(&self.body).await?;
        Ok(server)
    }
}

/// One request a connection.
async fn serve(stream: TcpStream, forbidden: &str, upstream: &str) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let request = Request::read(&mut stream).await?;
    if request.call == forbidden {
        let head =
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\nConnection: close";
        let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{REFUSAL}", REFUSAL.len());
        return stream.write_all(answer.as_bytes()).await;
    }
    let mut server = request.send(upstream).await?;
    tokio::io::copy(&mut server, &mut stream).await?;
    stream.shutdown().await
}
