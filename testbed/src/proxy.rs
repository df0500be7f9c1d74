//! A network that fails when told to: a TCP proxy on the loopback, put before either end.

use crate::Result;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is wrong with the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Every connection is closed at once.
    Refuse,
    /// Connections stay open and carry nothing.
    Stall,
    /// Each piece of an answer takes so long.
    Slow(Duration),
    /// HTTP requests that contain the first text never arrive; the second is the answer.
    Answer(&'static str, String),
    /// Of what the server says, so many bytes arrive; then the connection is closed.
    Truncate(usize),
    /// Requests that contain a text never arrive; what answers them never ends.
    Endless(Endless),
}

/// An answer that never ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endless {
    /// What requests contain that are answered so; all of them if it is empty.
    pub to: &'static str,
    /// How the answer begins.
    pub start: Vec<u8>,
    /// What follows, again and again.
    pub piece: Vec<u8>,
    /// The time between two of these.
    pub pause: Duration,
}

impl Fault {
    /// An HTTP answer to requests that contain `to`, all of them if it is empty.
    pub fn answer(to: &'static str, status: &str, body: &str) -> Self {
        let length = body.len();
        let head = "Content-Type: application/x-amz-json-1.0\r\nConnection: close";
        Self::Answer(to, format!("HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}"))
    }
}

/// A proxy, gone with its value.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    fault: watch::Sender<Fault>,
    cuts: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Proxy {
    /// A proxy before a port of the loopback.
    pub async fn before(server: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (fault, cuts) = (watch::Sender::new(Fault::None), watch::Sender::new(0));
        let (faults, cut) = (fault.subscribe(), cuts.subscribe());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (faults, mut cut) = (faults.clone(), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = carry(client, server, faults) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Ok(Self { port, fault, cuts, accepting })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on this is wrong, also for connections that are open.
    pub fn set(&self, fault: Fault) {
        let cut = fault == Fault::Refuse;
        self.fault.send_replace(fault);
        if cut {
            self.cut();
        }
    }

    /// Cuts every connection that is open, once.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// Carries both directions until one ends.
async fn carry(client: TcpStream, server: u16, fault: watch::Receiver<Fault>) -> Result<()> {
    if *fault.borrow() == Fault::Refuse {
        return Ok(());
    }
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let answered = {
        let there = ask(from_client, to_server, fault.clone());
        let back = tell(from_server, &mut to_client, fault);
        tokio::select! {
            answer = there => answer?,
            ended = back => { ended?; None }
        }
    };
    match answered {
        Some(Instead::Answer(answer)) => to_client.write_all(answer.as_bytes()).await?,
        Some(Instead::Endless(answer)) => {
            to_client.write_all(&answer.start).await?;
            loop {
                to_client.write_all(&answer.piece).await?;
                tokio::time::sleep(answer.pause).await;
            }
        }
        None => {}
    }
    Ok(())
}

/// What a client is told instead of what the server would say.
enum Instead {
    Answer(String),
    Endless(Endless),
}

/// From client to server; returns an answer that is to be given instead.
async fn ask(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
) -> Result<Option<Instead>> {
    let mut piece = vec![0; 1 << 16];
    loop {
        let size = from.read(&mut piece).await?;
        if size == 0 {
            return Ok(None);
        }
        fault.wait_for(|fault| *fault != Fault::Stall).await?;
        let has = |wanted: &str| {
            let mut parts = piece[..size].windows(wanted.len().max(1));
            parts.any(|part| part.starts_with(wanted.as_bytes()))
        };
        let instead = match &*fault.borrow() {
            Fault::Answer(wanted, answer) if has(wanted) => Some(Instead::Answer(answer.clone())),
            Fault::Endless(answer) if has(answer.to) => Some(Instead::Endless(answer.clone())),
            _ => None,
        };
        if instead.is_some() {
            // The rest of the request, so that the answer is not lost with an unread rest.
            let rest = async { while from.read(&mut piece).await.is_ok_and(|size| size > 0) {} };
            let _ = tokio::time::timeout(Duration::from_millis(20), rest).await;
            return Ok(instead);
        }
        to.write_all(&piece[..size]).await?;
    }
}

/// From server to client.
async fn tell(
    mut from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
) -> Result<()> {
    let mut piece = vec![0; 1 << 16];
    loop {
        let size = from.read(&mut piece).await?;
        if size == 0 {
            return Ok(());
        }
        fault.wait_for(|fault| *fault != Fault::Stall).await?;
        let now = fault.borrow().clone();
        match now {
            Fault::Slow(time) => tokio::time::sleep(time).await,
            Fault::Truncate(most) => {
                to.write_all(&piece[..size.min(most)]).await?;
                return Ok(());
            }
            _ => {}
        }
        to.write_all(&piece[..size]).await?;
    }
}
