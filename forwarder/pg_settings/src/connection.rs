//! Connecting: to which server, over TLS or not, and what it means when none takes us.

use crate::error::{Error, Kind, causes};
use crate::refusal;
use crate::server::{Address, Liveness, Server, Socket, shuffle};
use crate::settings::Settings;
use crate::target::Target;
use crate::tls::{Connector, Negotiation, Protection, Way};
use crate::wire::{Objection, Terms, Wire};
use std::convert::Infallible;
use std::future::Ready;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, NoTls};
use tokio_util::task::AbortOnDropHandle;

/// A connection.
pub struct Connection {
    /// To query with.
    pub client: Client,
    /// The server's name and port.
    pub server: String,
    /// What the connection is safe from.
    pub protection: Protection,
    /// The connection does not leave this machine.
    pub local: bool,
    /// How to reach the same server again.
    line: Line,
    objection: Arc<OnceLock<Objection>>,
    /// What talks to the server; it ends with this, whether or not the server answers.
    _task: AbortOnDropHandle<()>,
}

impl Connection {
    /// Asks the server to give up the statement under way. That takes a connection of its own.
    pub async fn cancel(&self) -> Result<(), Error> {
        let token = self.client.cancel_token();
        let socket = self.line.open().await.map_err(|fault| fault.error)?;
        let asked = match &self.line.tls {
            None => token.cancel_query_raw(socket, NoTls).await,
            Some(tls) => {
                let encrypted = self.line.encrypt(tls, socket).await.map_err(|fault| fault.error)?;
                token.cancel_query_raw(encrypted, Encrypted).await
            }
        };
        asked.map_err(|error| Error::Unavailable {
            what: format!("at {} can't be asked to give up: {}", self.server, causes(&error)),
            source: Some(error.into()),
        })
    }

    /// Why this side has ended the connection, if it has: the server's answer was too large. A statement
    /// that was under way is reported as lost.
    pub fn given_up(&self) -> Option<Error> {
        self.objection.get().map(|objection| refusal::of_objection(objection, &self.server, ""))
    }
}

/// Why an attempt failed.
struct Fault {
    error: Error,
    /// Another way to connect, with TLS or without, may do better.
    other_way: bool,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { error, other_way: false }
    }
}

impl Settings {
    /// Connects to the first server that takes us.
    pub async fn connect(&self) -> Result<Connection, Error> {
        let mut servers: Vec<&Server> = self.servers.iter().collect();
        if self.shuffled {
            shuffle(&mut servers);
        }
        let mut last = None;
        for target in self.target.passes() {
            for server in &servers {
                match self.connect_to(server, *target).await {
                    Ok(connection) => return Ok(connection),
                    Err(error) if error.kind() == Kind::Transient => last = Some(error),
                    // As libpq does: a client that one server refuses does not go on to the next.
                    Err(error) => return Err(error),
                }
            }
        }
        Err(last.unwrap_or(Error::Url)) // there is a server
    }

    async fn connect_to(&self, server: &Server, target: Target) -> Result<Connection, Error> {
        let unreachable = |error| refusal::unreachable(error, &server.name);
        let mut addresses =
            self.within_timeout(server, async { server.addresses().await.map_err(unreachable) }).await?;
        if self.shuffled {
            shuffle(&mut addresses);
        }
        // A socket has no use for TLS, and libpq has none on it.
        let ways = if server.is_socket() { &[Way::Plain] } else { self.tls.ways() };
        let mut last = None;
        for address in addresses {
            for way in ways {
                let attempt = self.try_one(server, &address, *way, target);
                match self.within_timeout(server, attempt).await {
                    Ok(connection) => return Ok(connection),
                    Err(fault) if fault.other_way => last = Some(fault.error),
                    Err(fault) if fault.error.kind() == Kind::Transient => {
                        last = Some(fault.error);
                        break;
                    }
                    Err(fault) => return Err(fault.error),
                }
            }
            if last.as_ref().is_some_and(|error| error.kind() != Kind::Transient) {
                break;
            }
        }
        Err(last.unwrap_or_else(|| Error::Unavailable {
            what: format!("can't be reached at {}: its name has no address", server.name),
            source: None,
        }))
    }

    async fn within_timeout<T, E: From<Error>>(
        &self,
        server: &Server,
        attempt: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Some(timeout) = self.connect_timeout else { return attempt.await };
        tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| {
            let what = format!("at {} did not answer within {} s", server.name, timeout.as_secs());
            Err(Error::Unavailable { what, source: None }.into())
        })
    }

    async fn try_one(
        &self,
        server: &Server,
        address: &Address,
        way: Way,
        target: Target,
    ) -> Result<Connection, Fault> {
        let (mut config, password_from) = self.login(server)?;
        let terms = Terms {
            require_auth: self.require_auth.clone(),
            has_password: config.get_password().is_some(),
            answer_limit: self.answer_limit,
        };
        let line = Line {
            server: server.clone(),
            address: address.clone(),
            liveness: self.liveness.clone(),
            negotiation: self.tls.negotiation,
            tls: match way {
                Way::Plain => None,
                Way::Tls => Some(self.tls.connector()?),
            },
        };
        let objection = Arc::new(OnceLock::new());
        let socket = line.open().await?;
        let started = match &line.tls {
            None => {
                let wire = Wire::new(socket, terms, objection.clone());
                start(config.ssl_mode(SslMode::Disable), wire, NoTls).await
            }
            Some(tls) => {
                let wire = Wire::new(line.encrypt(tls, socket).await?, terms, objection.clone());
                // The question whether there is TLS was asked before.
                config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
                start(&config, wire, Encrypted).await
            }
        };
        let refused = |error: tokio_postgres::Error| {
            let other_way = refusal::is_of_this_way(&error);
            let error = refusal::of_start(error, objection.get(), &server.name, &password_from);
            Fault { error, other_way }
        };
        let (client, task) = started.map_err(refused)?;
        if let Some(shown) = line.tls.as_ref().and_then(|tls| tls.has_to_show.as_ref())
            && !shown.load(Ordering::Relaxed)
        {
            let what = format!(
                "the database at {} asks for no certificate, which sslcertmode=require wants",
                server.name
            );
            return Err(Error::Mismatch { what, source: None }.into());
        }
        if let Some(missed) = target.misses(&client).await.map_err(refused)? {
            let what = format!("at {} {missed}", server.name);
            return Err(Error::Unavailable { what, source: None }.into());
        }
        Ok(Connection {
            client,
            server: server.name.clone(),
            protection: line.tls.as_ref().map_or(Protection::None, |tls| tls.protection),
            local: server.is_local(),
            line,
            objection,
            _task: task,
        })
    }
}

/// Lets tokio-postgres log in over a stream, and lets the connection run by itself.
async fn start<S, T>(
    config: &tokio_postgres::Config,
    stream: S,
    tls: T,
) -> Result<(Client, AbortOnDropHandle<()>), tokio_postgres::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsConnect<S>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect_raw(stream, tls).await?;
    let task = tokio::spawn(async move {
        // What goes wrong here also ends the statement under way, which reports it.
        let _ = connection.await;
    });
    Ok((client, AbortOnDropHandle::new(task)))
}

/// The way to one server.
struct Line {
    server: Server,
    address: Address,
    liveness: Liveness,
    negotiation: Negotiation,
    tls: Option<Connector>,
}

impl Line {
    async fn open(&self) -> Result<Socket, Fault> {
        let opened = self.address.open(&self.liveness).await;
        opened.map_err(|error| refusal::unreachable(error, &self.server.name).into())
    }

    /// Speaks TLS over a socket, after asking the server whether it does (PostgreSQL manual, "SSL Session
    /// Encryption").
    async fn encrypt(
        &self,
        tls: &Connector,
        mut socket: Socket,
    ) -> Result<impl TlsStream + Unpin + Send + 'static + use<>, Fault> {
        let server = &self.server.name;
        let other_way = |error| Fault { error, other_way: true };
        if self.negotiation == Negotiation::Postgres {
            let asked = async {
                socket.write_all(&SSL_REQUEST).await?;
                socket.read_u8().await
            };
            match asked.await.map_err(|error| refusal::unreachable(error, server))? {
                b'S' => {}
                b'N' => return Err(other_way(refusal::no_tls(server))),
                // Whatever it says now, nothing protects it: it is not read.
                b'E' => {
                    let what = format!("at {server} refused to talk, before TLS began");
                    return Err(other_way(Error::Unavailable { what, source: None }));
                }
                _ => return Err(refusal::of_objection(&Objection::NotPostgres, server, "").into()),
            }
        }
        let mut tls = tls.tls.clone();
        let connector = MakeTlsConnect::<Socket>::make_tls_connect(&mut tls, &self.server.host);
        let connector =
            connector.map_err(|error| other_way(refusal::of_tls(std::io::Error::other(error), server)))?;
        connector.connect(socket).await.map_err(|error| other_way(refusal::of_tls(error, server)))
    }
}

/// A request for TLS: its length, and the code 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Tells tokio-postgres that a stream is encrypted already.
struct Encrypted;

impl<S: TlsStream + Unpin> TlsConnect<S> for Encrypted {
    type Stream = S;
    type Error = Infallible;
    type Future = Ready<Result<S, Infallible>>;

    fn connect(self, stream: S) -> Self::Future {
        std::future::ready(Ok(stream))
    }
}
