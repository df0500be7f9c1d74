//! What the tests share: a cluster, an emulator, and ways to ask them.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::process::Command;
use testbed::cluster::Cluster;
use testbed::emulator::Emulator;
use testbed::forwarder::{self, Ended};
use testbed::guardian::wait_until;
use testbed::queue::Queue;
use tokio::sync::OnceCell;
use tokio_postgres::Client;
use tokio_postgres::types::{FromSql, Type};

/// The cluster for tests that do nothing to a whole server.
pub(crate) async fn cluster() -> &'static Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    let start = async || {
        let cluster = Cluster::start(&[]).await.expect("a cluster starts");
        cluster.make_template().await.expect("its template is made");
        cluster
    };
    SHARED.get_or_init(start).await
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
        let url = cluster().await.url("pgmask_forwarder", self.name);
        let mut command = forwarder::command(localstack().await, self.name, &url).unwrap();
        command.arg("--drain");
        command
    }

    /// A forwarder that runs until it is told to stop.
    pub(crate) async fn forwarder(&self) -> Command {
        let url = cluster().await.url("pgmask_forwarder", self.name);
        forwarder::command(localstack().await, self.name, &url).unwrap()
    }

    /// Waits until there are so many rows.
    pub(crate) async fn rows(&self, rows: usize) {
        let there = || async { self.count("SELECT count(*) FROM user_logins").await >= rows as i64 };
        wait_until(&format!("{rows} rows"), there).await.unwrap();
    }

    /// Expects just the logins below a number, each once, and nothing left in the queue.
    pub(crate) async fn holds_each_once(&self, logins: usize) {
        let each_once = "SELECT count(*) FROM user_logins";
        assert_eq!(self.count(each_once).await, logins as i64);
        assert_eq!(self.count("SELECT count(DISTINCT user_id) FROM user_logins").await, logins as i64);
        assert_eq!(self.queue.depth().await.unwrap(), [0, 0, 0]);
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

/// Logins of different users.
pub(crate) fn logins(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!(r#"{{"user_id":"user {n}","ip":"198.51.100.7"}}"#)).collect()
}

/// Makes the database take so many seconds for every batch.
pub(crate) async fn slow_down(database: &Client, seconds: f64) {
    let trigger = format!(
        "CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$;
         CREATE OR REPLACE TRIGGER slowly BEFORE INSERT ON user_logins FOR EACH STATEMENT EXECUTE FUNCTION slowly()"
    );
    database.batch_execute(&trigger).await.unwrap();
}

/// The number that a query gives.
pub(crate) async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// The first column of a query's rows, texts.
pub(crate) async fn texts(client: &Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
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

/// Kills a server process as the kernel does that has no memory left: all sessions end.
pub(crate) fn kill_backend(pid: i64) {
    let killed = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
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

/// Takes messages in, each an id and a body, sent at noon of 2026-11-20: how many were inserted,
/// duplicates, quarantined.
pub(crate) async fn ingest<I: AsRef<str>, B: AsRef<str>>(client: &Client, messages: &[(I, B)]) -> [i64; 3] {
    let sent_at = "2026-11-20 12:00:00+00";
    try_ingest(client, messages, sent_at).await.unwrap_or_else(|error| panic!("{error:?}"))
}

/// The same, sent at a time that PostgreSQL can read, and perhaps refused as a whole.
pub(crate) async fn try_ingest<I: AsRef<str>, B: AsRef<str>>(
    client: &Client,
    messages: &[(I, B)],
    sent_at: &str,
) -> Result<[i64; 3], tokio_postgres::Error> {
    let ids: Vec<&str> = messages.iter().map(|(id, _)| id.as_ref()).collect();
    let bodies: Vec<&str> = messages.iter().map(|(_, body)| body.as_ref()).collect();
    let sql = "SELECT inserted, duplicate, quarantined FROM pgmask.ingest_login_batch($1, $2,
        array_fill($3::text::timestamptz, ARRAY[cardinality($1::text[])]), array_fill(1, ARRAY[cardinality($1::text[])]))";
    let row = client.query_one(sql, &[&ids, &bodies, &sent_at]).await?;
    Ok([0, 1, 2].map(|at| row.get(at)))
}

/// A text as it comes, whatever its encoding.
#[derive(Debug, PartialEq)]
pub(crate) struct Raw(pub(crate) Vec<u8>);

impl FromSql<'_> for Raw {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// What the recoverer's procedure shows.
pub(crate) async fn unseal(
    client: &Client,
    id: Option<i64>,
    reason: Option<&str>,
) -> Result<Vec<u8>, tokio_postgres::Error> {
    let row = client.query_one("CALL pgmask.unseal_quarantine($1, $2)", &[&id, &reason]).await?;
    Ok(row.get::<_, Raw>(0).0)
}

/// All bodies of the quarantine, opened, by id.
pub(crate) async fn unseal_all(client: &Client) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for row in client.query("SELECT id FROM pgmask.quarantine ORDER BY id", &[]).await.unwrap() {
        bodies.push(unseal(client, Some(row.get(0)), Some("a test")).await.unwrap());
    }
    bodies
}

/// The keyring of the shared cluster.
pub(crate) async fn keyring() -> Value {
    let text = std::fs::read(cluster().await.data().join("pg_mask.keyring")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Masking contract v1 once more, from its text: of a value in its canonical form.
pub(crate) fn token(keyring: &Value, value: &str) -> String {
    token_of(keyring, "pii", value)
}

/// The same, in a domain.
pub(crate) fn token_of(keyring: &Value, domain: &str, value: &str) -> String {
    let info = format!("pg_mask/v1/mask/{domain}");
    let mut hash = Sha256::digest(value.as_bytes());
    let generations = keyring["generations"].as_array().unwrap();
    for generation in generations {
        let key = hex::decode(generation["key"].as_str().unwrap()).unwrap();
        let mut derived = [0; 32];
        Hkdf::<Sha256>::new(None, &key).expand(info.as_bytes(), &mut derived).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&derived).unwrap();
        mac.update(&hash);
        hash = mac.finalize().into_bytes();
    }
    format!("m{}_{}", generations.len(), hex::encode(hash))
}

/// Has commits wait for a synchronous standby that there is none of, until [`nobody_waits`]. `admin` doesn't wait itself.
pub(crate) async fn commits_wait(cluster: &Cluster, database: &str, admin: &Client) {
    admin.batch_execute("SET synchronous_commit = local").await.unwrap();
    admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'answers_not'").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    // Sessions see the setting before the process that keeps it for commits has.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    while count(admin, waits).await == 0 {
        let client = cluster.connect(database).await.unwrap();
        let commits = tokio::spawn(async move {
            client.batch_execute("SELECT pg_logical_emit_message(true, '', '')").await
        });
        let tells = || async { commits.is_finished() || count(admin, waits).await > 0 };
        wait_until("a commit is through, or waits", tells).await.unwrap();
    }
}

/// Ends [`commits_wait`].
pub(crate) async fn nobody_waits(admin: &Client) {
    admin.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_until("nobody waits", || async { count(admin, waits).await == 0 }).await.unwrap();
}
