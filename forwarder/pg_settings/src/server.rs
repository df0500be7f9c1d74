//! The servers that settings name, and sockets to them.

use crate::error::Error;
use crate::parameters::Parameters;
use socket2::{SockRef, TcpKeepalive};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

/// A server, by the name that people know it by.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Host and port, as errors show them.
    pub(crate) name: String,
    /// What certificates and password files name.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Where it is, if that is given beside its name.
    address: Option<IpAddr>,
}

/// Where a server's socket is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A connection to a server.
pub(crate) type Socket = Either<TcpStream, UnixStream>;

/// How sockets notice that a server is gone.
#[derive(Debug, Clone)]
pub(crate) struct Liveness {
    /// None: no keepalives.
    keepalive: Option<TcpKeepalive>,
    /// How long sent data may stay unacknowledged.
    user_timeout: Option<Duration>,
}

impl Liveness {
    pub(crate) fn read(given: &mut Parameters) -> Result<Self, Error> {
        let on = given.take_number::<i32>("keepalives")?.is_none_or(|on| on != 0);
        // Zero is the system's default.
        let seconds = |given: &mut Parameters, name| {
            Ok::<_, Error>(
                given.take_number::<u32>(name)?.filter(|n| *n > 0).map(|n| Duration::from_secs(n.into())),
            )
        };
        let mut keepalive = TcpKeepalive::new();
        if let Some(idle) = seconds(given, "keepalives_idle")? {
            keepalive = keepalive.with_time(idle);
        }
        if let Some(interval) = seconds(given, "keepalives_interval")? {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(count) = given.take_number::<u32>("keepalives_count")?.filter(|count| *count > 0) {
            keepalive = keepalive.with_retries(count);
        }
        let user_timeout = given.take_number::<u32>("tcp_user_timeout")?.filter(|n| *n > 0);
        let user_timeout = user_timeout.map(|milliseconds| Duration::from_millis(milliseconds.into()));
        Ok(Self { keepalive: on.then_some(keepalive), user_timeout })
    }
}

impl Server {
    /// The servers that lists of hosts, addresses and ports name.
    pub(crate) fn read(given: &mut Parameters) -> Result<Vec<Self>, Error> {
        let (hosts, addresses) = (given.take_list("host"), given.take_list("hostaddr"));
        let ports = given.take_list("port");
        let count = hosts.len().max(addresses.len()).max(1);
        let fits = |list: &[String]| list.is_empty() || list.len() == count;
        if !fits(&hosts) || !fits(&addresses) || !(fits(&ports) || ports.len() == 1) {
            return Err(Error::Setting(
                "the database's hosts, addresses and ports are lists of different lengths".to_owned(),
            ));
        }
        let element = |list: &[String], place: usize| {
            let element = if list.len() == 1 { list.first() } else { list.get(place) };
            element.filter(|element| !element.is_empty()).cloned()
        };
        let wrong = |what: &'static str| move || Error::Setting(format!("the database's {what}"));
        let server = |place| {
            let address = element(&addresses, place).map(|address| {
                address.parse().map_err(|_| wrong("hostaddr (PGHOSTADDR) is no IP address")())
            });
            let address: Option<IpAddr> = address.transpose()?;
            // Without a name, TLS has the address to compare with.
            let named = element(&hosts, place).or_else(|| address.map(|address| address.to_string()));
            let host = named.unwrap_or_else(|| "localhost".to_owned());
            if host.starts_with('@') {
                return Err(Error::Setting("sockets in the abstract namespace are not supported".to_owned()));
            }
            let port = match element(&ports, place) {
                Some(port) => port
                    .trim()
                    .parse()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(wrong("port (PGPORT, or in the URL) is no number from 1 to 65535"))?,
                None => 5432,
            };
            let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            Ok(Self { name, host, port, address })
        };
        (0..count).map(server).collect()
    }

    /// Whether connections go over a socket of this machine's file system.
    pub(crate) fn is_socket(&self) -> bool {
        self.address.is_none() && self.host.starts_with('/')
    }

    /// Whether connections stay on this machine: they go over such a socket or the loopback.
    pub(crate) fn is_local(&self) -> bool {
        let address = self.address.or_else(|| self.host.parse().ok());
        self.is_socket() || address.map_or(self.host == "localhost", |address| address.is_loopback())
    }

    /// Where it is now: a name may have several addresses, and others tomorrow.
    pub(crate) async fn addresses(&self) -> std::io::Result<Vec<Address>> {
        if self.is_socket() {
            return Ok(vec![Address::Unix(Path::new(&self.host).join(format!(".s.PGSQL.{}", self.port)))]);
        }
        if let Some(address) = self.address {
            return Ok(vec![Address::Tcp((address, self.port).into())]);
        }
        Ok(tokio::net::lookup_host((self.host.as_str(), self.port)).await?.map(Address::Tcp).collect())
    }
}

impl Address {
    pub(crate) async fn open(&self, liveness: &Liveness) -> std::io::Result<Socket> {
        match self {
            Self::Unix(path) => Ok(Either::Right(UnixStream::connect(path).await?)),
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let socket = SockRef::from(&stream);
                if let Some(keepalive) = &liveness.keepalive {
                    socket.set_tcp_keepalive(keepalive)?;
                }
                #[cfg(target_os = "linux")]
                socket.set_tcp_user_timeout(liveness.user_timeout)?;
                Ok(Either::Left(stream))
            }
        }
    }
}

/// Puts a list into a random order (`load_balance_hosts`).
pub(crate) fn shuffle<T>(list: &mut [T]) {
    // The standard library's random numbers: the keys of its hash maps.
    list.sort_by_cached_key(|_| RandomState::new().hash_one(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(url: &str) -> Result<Vec<Server>, Error> {
        Server::read(&mut Parameters::read(Some(url), &[], |_| None)?)
    }

    #[test]
    fn servers_are_those_that_the_lists_name() {
        let names = |url| servers(url).unwrap().into_iter().map(|server| server.name).collect::<Vec<_>>();
        assert_eq!(names("postgresql://"), ["localhost:5432"]);
        assert_eq!(names("postgresql://a,[::1]:5433,c/db"), ["a:5432", "[::1]:5433", "c:5432"]);
        assert_eq!(names("postgresql://?host=a,b&port=6000"), ["a:6000", "b:6000"]);
        assert_eq!(names("postgresql://?hostaddr=192.0.2.1"), ["192.0.2.1:5432"]);
        assert_eq!(names("postgresql://%2Frun%2Fpostgresql/db"), ["/run/postgresql:5432"]);
        for wrong in [
            "a,b?port=1,2,3",
            "a?hostaddr=1.2.3.4,1.2.3.5",
            "a:x",
            "a:0",
            "a:70000",
            "a?hostaddr=x",
            "%40abstract",
        ] {
            let url = format!("postgresql://{wrong}");
            assert!(servers(&url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_connection_is_local_where_it_does_not_leave_the_machine() {
        let is_local = |url: String| servers(&url).unwrap()[0].is_local();
        for local in ["", "localhost", "127.0.0.1", "[::1]", "%2Ftmp", "db.example?hostaddr=127.0.0.1"] {
            assert!(is_local(format!("postgresql://{local}")), "{local}");
        }
        for remote in ["db.example", "192.0.2.1", "localhost?hostaddr=192.0.2.1"] {
            assert!(!is_local(format!("postgresql://{remote}")), "{remote}");
        }
    }

    #[tokio::test]
    async fn addresses_are_looked_up() {
        let server = servers("postgresql://%2Frun:6000").unwrap().remove(0);
        assert_eq!(server.addresses().await.unwrap(), [Address::Unix("/run/.s.PGSQL.6000".into())]);
        let server = servers("postgresql://db.invalid?hostaddr=192.0.2.1").unwrap().remove(0);
        assert_eq!(server.addresses().await.unwrap(), [Address::Tcp("192.0.2.1:5432".parse().unwrap())]);
    }
}
