//! Connecting: which servers in which order, over TLS or not, and what it means when none takes us.

use crate::error::{Error, Kind};
use crate::parameters::{Parameters, not_a};
use crate::passfile::{self, Login};
use crate::refusal;
use crate::secret_file;
use crate::tls::{Protection, Tls, Way};
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

/// Everything that connecting needs.
#[derive(Debug)]
pub struct Settings {
    /// In the order in which they are tried. tokio-postgres shows no password of these.
    servers: Vec<Server>,
    tls: Tls,
    password_file: Option<PathBuf>,
    secret_file: Option<PathBuf>,
    patience: Option<Duration>,
}

/// A server, by the name that people know it by.
#[derive(Debug, Clone)]
struct Server {
    name: String,
    host: String,
    port: u16,
    /// Nobody is on the way there: a socket or the loopback.
    local: bool,
    config: tokio_postgres::Config,
}

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
    tls: Option<MakeRustlsConnect>,
    /// What talks to the server; it ends with this, whether or not the server answers.
    _task: AbortOnDropHandle<()>,
}

impl Connection {
    /// Asks the server to give up the statement under way. That takes a connection of its own.
    pub async fn cancel(&self) -> Result<(), tokio_postgres::Error> {
        let token = self.client.cancel_token();
        match self.tls.clone() {
            Some(tls) => token.cancel_query(tls).await,
            None => token.cancel_query(NoTls).await,
        }
    }
}

/// How long one attempt may take if `connect_timeout` says nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// A server that is gone without a word is given up after so long, idle or in the midst of a statement.
const SILENCE: Duration = Duration::from_secs(30);

impl Settings {
    /// Reads the URL, if there is one, and for what it leaves open the variables that libpq knows.
    pub fn read(url: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut given = Parameters::read(url, &variable)?;
        let home = variable("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let tls = Tls::read(&mut given, home.as_deref())?;
        let password_file =
            given.take("passfile").map(PathBuf::from).or_else(|| Some(home.as_deref()?.join(".pgpass")));
        let secret_file = variable("PGPASSWORD_FILE").filter(|file| !file.is_empty()).map(PathBuf::from);
        // Writes go to a primary. A standby that was one is found out here, not by the next batch.
        let target = match given.take("target_session_attrs").as_deref() {
            None | Some("read-write" | "primary") => TargetSessionAttrs::ReadWrite,
            Some("any") => TargetSessionAttrs::Any,
            Some(_) => return not_a("target_session_attrs"),
        };
        let (hosts, addresses) = (given.take_list("host"), given.take_list("hostaddr"));
        let ports = given.take_list("port");
        let patience_given = given.get("connect_timeout").is_some();
        let silence_given = given.get("keepalives_idle").or(given.get("tcp_user_timeout")).is_some();
        let mut common = given.config()?;
        common.target_session_attrs(target);
        if !patience_given {
            common.connect_timeout(PATIENCE);
        }
        if !silence_given {
            common.keepalives_idle(SILENCE / 2).keepalives_interval(SILENCE / 6).keepalives_retries(3);
            common.tcp_user_timeout(SILENCE);
        }
        if common.get_user().is_none()
            && let Some(user) = variable("USER")
        {
            common.user(user);
        }
        if common.get_application_name().is_none() {
            common.application_name("pg_mask forwarder");
        }
        let patience = common.get_connect_timeout().copied();
        let servers = servers(&hosts, &addresses, &ports, &common)?;
        Ok(Self { servers, tls, password_file, secret_file, patience })
    }

    /// Whether a password was given in the URL or in PGPASSWORD.
    pub fn has_password(&self) -> bool {
        self.servers.iter().any(|server| server.config.get_password().is_some())
    }

    /// Connects to the first server that takes us.
    pub async fn connect(&self) -> Result<Connection, Error> {
        let mut servers = self.servers.iter().peekable();
        while let Some(server) = servers.next() {
            match self.connect_to(server.clone()).await {
                Ok(connected) => return Ok(connected),
                Err(error) if error.kind() == Kind::Transient && servers.peek().is_some() => {}
                // As libpq does: who is refused by one does not go on to the next.
                Err(error) => return Err(error),
            }
        }
        Err(Error::Url) // there is a server
    }

    async fn connect_to(&self, mut server: Server) -> Result<Connection, Error> {
        let password_from = self.find_password(&mut server)?;
        let on_socket = server.host.starts_with('/');
        // A socket has no use for TLS, and libpq has none on it.
        let ways = if on_socket { &[Way::Plain] } else { self.tls.ways() };
        let mut ways = ways.iter().peekable();
        while let Some(way) = ways.next() {
            match self.try_one(&server, *way).await? {
                Ok(connected) => return Ok(connected),
                Err(error) if ways.peek().is_some() && refusal::is_of_this_way(&error) => {}
                Err(error) => return Err(refusal::sort(error, &server.name, &password_from)),
            }
        }
        Err(Error::Url) // there is a way
    }

    /// The outer errors are those that no other way makes better.
    async fn try_one(
        &self,
        server: &Server,
        way: Way,
    ) -> Result<Result<Connection, tokio_postgres::Error>, Error> {
        let mut config = server.config.clone();
        let attempt = async {
            let (tls, protection) = match way {
                Way::Plain => (None, Protection::None),
                Way::Tls => self.tls.connector().map(|(tls, protection)| (Some(tls), protection))?,
            };
            let connected = match tls.clone() {
                Some(tls) => connect(config.ssl_mode(SslMode::Require), tls).await,
                None => connect(config.ssl_mode(SslMode::Disable), NoTls).await,
            };
            Ok(connected.map(|(client, task)| {
                let (server, local) = (server.name.clone(), server.local);
                Connection { client, server, protection, local, tls, _task: task }
            }))
        };
        let Some(patience) = self.patience else { return attempt.await };
        tokio::time::timeout(patience, attempt).await.unwrap_or_else(|_| {
            Err(Error::Unavailable {
                what: format!("at {} did not answer within {} s", server.name, patience.as_secs()),
                source: None,
            })
        })
    }

    /// Gives a server its password from a file, if it needs one; says where it comes from. Files are read
    /// for each connection: passwords may be renewed meanwhile.
    fn find_password(&self, server: &mut Server) -> Result<String, Error> {
        if server.config.get_password().is_some() {
            return Ok("from the URL or PGPASSWORD".to_owned());
        }
        if let Some(file) = &self.secret_file {
            server.config.password(secret_file::password(file)?);
            return Ok(format!("from {}", file.display()));
        }
        let Some(file) = &self.password_file else { return Ok("none was given".to_owned()) };
        let user = server.config.get_user().unwrap_or_default().to_owned();
        let database = server.config.get_dbname().unwrap_or(&user).to_owned();
        let login = Login { host: &server.host, port: server.port, database: &database, user: &user };
        Ok(match passfile::password(file, login) {
            Some(password) => {
                server.config.password(password);
                format!("from {}", file.display())
            }
            None => format!("none was given, and {} has none for it", file.display()),
        })
    }
}

/// The servers that lists of hosts, addresses and ports name.
fn servers(
    hosts: &[String],
    addresses: &[String],
    ports: &[String],
    common: &tokio_postgres::Config,
) -> Result<Vec<Server>, Error> {
    let count = hosts.len().max(addresses.len()).max(1);
    let fits = |list: &[String]| list.is_empty() || list.len() == count;
    if !fits(hosts) || !fits(addresses) || !(fits(ports) || ports.len() == 1) {
        return Err(Error::Setting(
            "the database's hosts, addresses and ports are lists of different lengths".to_owned(),
        ));
    }
    (0..count)
        .map(|place| {
            let given = |list: &[String]| list.get(place).filter(|element| !element.is_empty()).cloned();
            let mut config = common.clone();
            let address = given(addresses);
            if let Some(address) = &address {
                let Ok(address) = address.parse() else { return not_a("hostaddr") };
                config.hostaddr(address);
            }
            // Without a name, TLS has the address to compare with.
            let host = given(hosts).or(address.clone()).unwrap_or_else(|| "localhost".to_owned());
            config.host(&host);
            let port = match given(ports).or_else(|| ports.first().filter(|_| ports.len() == 1).cloned()) {
                Some(port) if !port.is_empty() => match port.parse() {
                    Ok(port) => port,
                    Err(_) => return not_a("port"),
                },
                _ => 5432,
            };
            config.port(port);
            let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            let local = is_local(address.as_ref().unwrap_or(&host));
            Ok(Server { name, host, port, local, config })
        })
        .collect()
}

/// Connects, and lets the connection run by itself.
async fn connect<T>(
    config: &tokio_postgres::Config,
    tls: T,
) -> Result<(Client, AbortOnDropHandle<()>), tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    let task = tokio::spawn(async move {
        // What goes wrong here also ends the statement under way, which reports it.
        let _ = connection.await;
    });
    Ok((client, AbortOnDropHandle::new(task)))
}

fn is_local(host: &str) -> bool {
    host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers_of(url: &str) -> Vec<String> {
        let settings = Settings::read(Some(url), |_| None).unwrap();
        settings.servers.into_iter().map(|server| server.name).collect()
    }

    #[test]
    fn servers_are_tried_in_the_order_given() {
        assert_eq!(servers_of("postgresql://"), ["localhost:5432"]);
        assert_eq!(servers_of("postgresql://a,[::1]:5433,c/db"), ["a:5432", "[::1]:5433", "c:5432"]);
        assert_eq!(servers_of("postgresql://?host=a,b&port=6000"), ["a:6000", "b:6000"]);
        assert_eq!(servers_of("postgresql://?hostaddr=192.0.2.1"), ["192.0.2.1:5432"]);
        assert_eq!(servers_of("postgresql://%2Frun%2Fpostgresql/db"), ["/run/postgresql:5432"]);
        for wrong in ["a,b?port=1,2,3", "a?hostaddr=1.2.3.4,1.2.3.5", "a:x", "a?hostaddr=x", "a?sslmode=x"] {
            let url = format!("postgresql://{wrong}");
            assert!(Settings::read(Some(&url), |_| None).is_err(), "{url}");
        }
    }

    #[test]
    fn no_password_is_printed() {
        let settings = Settings::read(Some("postgresql://u:hunter2@a,b/db"), |_| None).unwrap();
        assert!(settings.has_password() && !format!("{settings:?}").contains("hunter2"));
    }
}
