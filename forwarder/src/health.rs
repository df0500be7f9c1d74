//! `forwarder health`: asks a running forwarder whether it is ready, for the health checks of containers.

use crate::config::{Config, Health};
use crate::error::{Error, Kind};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long connecting may take, and each part of the answer: `/readyz` itself looks at both ends for a while.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest answer.
const MOST: u64 = 16 << 10;

/// Asks the forwarder that listens at `--metrics-listen`, and prints its answer.
pub(crate) fn ask(config: &Config, health: &Health) -> Result<(), Error> {
    let Some(address) = config.metrics_listen else {
        let text = "no address is given where the forwarder serves its health";
        return Err(Error::new(Kind::SetUp, None, text)
            .with_hint("Give it --metrics-listen (FORWARDER_METRICS_LISTEN), and this command the same."));
    };
    let address = reachable(address);
    let path = if health.alive { "/healthz" } else { "/readyz" };
    let answer = get(address, path).map_err(|error| {
        let text = format!("no forwarder answers at {address}: {error}");
        Error::new(Kind::Transient, None, text).caused_by(error)
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") {
        let _ = write!(std::io::stdout(), "{body}");
        return Ok(());
    }
    Err(Error::new(Kind::Transient, None, format!("the forwarder is not ready: {}", body.trim_end())))
}

/// Where a forwarder that listens on every address can be reached from its own machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Head and body of the answer.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MOST).read_to_string(&mut answer)?;
    Ok(answer)
}
