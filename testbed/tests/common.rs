//! What the tests share: a cluster, an emulator, and ways to ask them.

use serde_json::Value;
use std::process::Command;
use testbed::cluster::Cluster;
use testbed::emulator::Emulator;
use testbed::forwarder::{self, Ended};
use testbed::queue::Queue;
use tokio::sync::OnceCell;
use tokio_postgres::Client;

/// The cluster for tests that do nothing to a whole server.
pub(crate) async fn cluster() -> &'static Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED.get_or_init(async || Cluster::start(&[]).await.expect("a cluster starts")).await
}

/// LocalStack, for everybody: each test has a queue of its own.
pub(crate) async fn localstack() -> &'static Emulator {
    static SHARED: OnceCell<Emulator> = OnceCell::const_new();
    SHARED.get_or_init(async || Emulator::localstack().await.expect("LocalStack starts")).await
}

/// A database and a queue of the same name, and what goes between them.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) database: Client,
    pub(crate) queue: Queue,
}

impl Way {
    /// A database with everything in it and an empty queue.
    pub(crate) async fn new(name: &'static str) -> Self {
        let database = cluster().await.database(name).await.expect("a database is made");
        let queue = Queue::create(localstack().await, name).await.expect("a queue is made");
        Self { name, database, queue }
    }

    /// A forwarder that drains the queue into the database.
    pub(crate) async fn drain(&self) -> Command {
        let url = cluster().await.url("mask_forwarder", self.name);
        let mut command = forwarder::command(localstack().await, self.name, &url).unwrap();
        command.arg("--drain");
        command
    }

    /// Drains, and expects the best.
    pub(crate) async fn drained(&self) -> Value {
        let ended = forwarder::run(self.drain().await).await.unwrap();
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        ended.summary
    }

    /// The number that a query gives.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        count(&self.database, sql).await
    }
}

/// The number that a query gives.
pub(crate) async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// The counts of a summary, in the order of [`COUNTS`].
pub(crate) fn counts(summary: &Value) -> [u64; 5] {
    COUNTS.map(|name| summary[name].as_u64().unwrap_or_else(|| panic!("no {name} in {summary}")))
}

pub(crate) const COUNTS: [&str; 5] = ["received", "inserted", "duplicate", "quarantined", "deleted"];

/// The part of an error that a person reads.
pub(crate) fn message(error: &tokio_postgres::Error) -> String {
    let db = error.as_db_error().unwrap_or_else(|| panic!("not from the server: {error}"));
    format!("{} {} {}", db.code().code(), db.message(), db.hint().unwrap_or_default())
}

/// Runs a forwarder and expects it to end with a code and to say something.
pub(crate) async fn ends_with(command: Command, code: i32, saying: &str) -> Ended {
    let ended = forwarder::run(command).await.unwrap();
    assert_eq!(ended.code, Some(code), "{}", ended.log);
    assert!(ended.log.contains(saying), "expected {saying:?} in:\n{}", ended.log);
    ended
}

/// Puts a keyring's text in place as a DBA would: owned by the server's user, mode 600.
pub(crate) fn write_keyring(path: &std::path::Path, text: &[u8]) {
    use std::os::unix::fs::{PermissionsExt, chown};
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).unwrap();
    if let Some(user) = testbed::installation::shared().unwrap().user {
        chown(&fresh, Some(user.uid), Some(user.gid)).unwrap();
    }
    std::fs::rename(&fresh, path).unwrap();
}
