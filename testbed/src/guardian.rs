//! A server and its folder that are gone when their owner is: dropped, panicked, interrupted or
//! killed. A small shell script holds them, and its standard input ends with the owner.

use crate::Result;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A server that may be started and stopped many times, and its folder.
#[derive(Debug)]
pub struct Guardian {
    folder: PathBuf,
    script: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    server: Option<u32>,
}

impl Guardian {
    /// Makes a folder of its own, which other users may enter.
    pub fn folder(name: &str) -> Result<PathBuf> {
        let folder = tempfile::Builder::new().prefix(&format!("pg_mask-{name}-")).tempdir()?.keep();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
        Ok(folder)
    }

    /// Takes over `folder` and the server that `command` starts; `last_signal` ends it when its owner
    /// is gone. Nothing is started yet.
    pub fn new(folder: &Path, last_signal: &str, command: &[String]) -> Result<Self> {
        let mut script = Command::new("/bin/sh");
        script
            .arg(crate::root().join("testbed/guardian.sh"))
            .arg(folder)
            .arg(last_signal)
            .args(command)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Out of reach of Ctrl-C, which is for the owner.
            .process_group(0);
        let mut script = script.spawn().map_err(|error| format!("can't run /bin/sh: {error}"))?;
        let orders = script.stdin.take();
        let answers = script.stdout.take().ok_or("no pipe from the guardian")?;
        Ok(Self { folder: folder.to_owned(), script, orders, answers: BufReader::new(answers), server: None })
    }

    /// Starts the server; returns its process id.
    pub fn start(&mut self) -> Result<u32> {
        let pid = self.order("start")?.parse()?;
        self.server = Some(pid);
        Ok(pid)
    }

    /// Sends the server a signal (`TERM`, `INT`, `KILL` …) and waits for its end.
    pub fn stop(&mut self, signal: &str) -> Result<()> {
        if self.server.take().is_some() {
            self.order(&format!("stop {signal}"))?;
        }
        Ok(())
    }

    /// The server's process id, if it was started and not stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server
    }

    /// Whether the server was started and has not ended, by itself or otherwise.
    pub fn is_running(&self) -> bool {
        // Third in the file, after the command's name in parentheses; Z is an end nobody has seen yet.
        let stat = self.server.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        stat.is_some_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
    }

    /// The folder that goes with it.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// What the server printed.
    pub fn log(&self) -> String {
        std::fs::read(self.folder.join("log"))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    fn order(&mut self, order: &str) -> Result<String> {
        let orders = self.orders.as_mut().ok_or("the guardian is gone")?;
        writeln!(orders, "{order}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.script.wait();
    }
}

/// Waits until `ready` says so, however long a slow machine takes, up to two minutes.
pub async fn wait_until<F: Future<Output = bool>>(what: &str, mut ready: impl FnMut() -> F) -> Result<()> {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(120);
    while !ready().await {
        if tokio::time::Instant::now() > deadline {
            return Err(format!("{what}: not within two minutes").into());
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A TCP port of the loopback that refuses every connection, and that nobody else gets while this is there: it is
/// bound, and nothing listens at it.
#[derive(Debug)]
pub struct RefusedPort(tokio::net::TcpSocket);

impl RefusedPort {
    /// Takes one.
    pub fn new() -> Result<Self> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))?;
        Ok(Self(socket))
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.0.local_addr().map_or(0, |address| address.port())
    }
}

/// A TCP port of the loopback that was free a moment ago, for a server to listen at. Somebody else may take it
/// meanwhile; for one that refuses there is [`RefusedPort`].
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
