//! `testbed soak`: forwarders at full speed while everything is killed at random, and a sum at the end.
//!
//! Killed are the forwarders (kill -9), their server processes and the whole of PostgreSQL, which runs
//! with `fsync` on. The emulator's messages are in its memory, so it is not killed: its connections are
//! cut, stalled and refused by a proxy.

use crate::Result;
use crate::cluster::Cluster;
use crate::emulator::Emulator;
use crate::forwarder;
use crate::guardian::wait_until;
use crate::proxy::{Fault, Proxy};
use crate::queue::Queue;
use aws_sdk_sqs::config::retry::RetryConfig;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::process::Child;
use tokio::sync::Mutex;
use tokio_postgres::Client;

const NAME: &str = "soak";
/// How many messages may wait in the queue: enough for full speed, not more than memory takes.
const BACKLOG: u64 = 50_000;
const SENDERS: usize = 8;

/// Runs it, and fails if a message was lost or doubled.
pub async fn run(minutes: f64, localstack: bool, forwarders: usize) -> Result<()> {
    // Later settings count: this is not a server that loses what it has committed.
    let mut cluster = Cluster::start(&["fsync = on", "max_wal_size = 4GB"]).await?;
    drop(cluster.database(NAME).await?);
    let emulator = if localstack { Emulator::localstack().await? } else { Emulator::rustack().await? };
    let mut queue = Queue::create(&emulator, NAME).await?;
    // A call that is not answered and made again sends its messages twice.
    let once = queue.client.config().to_builder().retry_config(RetryConfig::disabled()).build();
    queue.client = aws_sdk_sqs::Client::from_conf(once);
    let proxy = Proxy::before(emulator.port()).await?;

    let sent = Arc::new(Sent::default());
    let enough = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> =
        (0..SENDERS).map(|_| tokio::spawn(send(queue.clone(), sent.clone(), enough.clone()))).collect();

    let mut random = Random(std::process::id().into());
    let mut running = Vec::new();
    for _ in 0..forwarders {
        running.push(start(&emulator, &proxy, &cluster)?);
    }
    let mut happened = [0u64; EVENTS.len()];
    let (begun, end) = (Instant::now(), Instant::now() + Duration::from_secs_f64(minutes * 60.0));
    let mut told = Instant::now();
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(500 + random.below(5000))).await;
        let event = random.below(EVENTS.len() as u64) as usize;
        happened[event] += 1;
        match EVENTS[event] {
            "forwarder killed" => {
                let one = random.below(forwarders as u64) as usize;
                running[one].kill().await?;
                running[one] = start(&emulator, &proxy, &cluster)?;
            }
            "server process killed" => {
                let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'pgmask_forwarder'";
                cluster.connect(NAME).await?.query_one(kill, &[]).await?;
            }
            "PostgreSQL killed" => {
                cluster.stop("KILL")?;
                // An outage of any length; whether its server processes have ended is seen to by restart.
                tokio::time::sleep(Duration::from_millis(1000 + random.below(3000))).await;
                cluster.restart().await?;
            }
            "queue's connections cut" => proxy.cut(),
            fault => {
                proxy.set(if fault == "queue stalled" { Fault::Stall } else { Fault::Refuse });
                tokio::time::sleep(Duration::from_millis(random.below(5000))).await;
                proxy.set(Fault::None);
            }
        }
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            let client = cluster.connect(NAME).await?;
            let rows: i64 = client.query_one("SELECT count(*) FROM user_logins", &[]).await?.get(0);
            let sent = sent.number.load(Relaxed);
            println!("{:.0} s: {sent} sent, {rows} rows", begun.elapsed().as_secs_f64());
        }
    }
    enough.store(true, Relaxed);
    for sender in senders {
        sender.await??;
    }
    let unsure = std::mem::take(&mut *sent.unsure.lock().await);
    let sure = sent.number.load(Relaxed) - CALL * unsure.len() as u64;
    println!("{sure} sent; waiting until all of it is deleted");
    wait_until_empty(&queue).await?;
    for mut forwarder in running {
        forwarder.kill().await?;
    }

    for (event, times) in EVENTS.iter().zip(happened) {
        println!("{event}: {times} times");
    }
    let client = cluster.connect(NAME).await?;
    let ([rows, users], [more_rows, more_users]) =
        (count(&client, "<> ALL", &unsure).await?, count(&client, "= ANY", &unsure).await?);
    let rate = sure as f64 / begun.elapsed().as_secs_f64();
    println!("{sure} sent, {rows} rows of {users} messages; {rate:.0} a second");
    println!("{} calls to send were not answered: {more_rows} rows of {more_users} messages", unsure.len());
    if (rows, users, more_rows) != (sure, sure, more_users) {
        return Err("messages were lost or doubled".into());
    }
    println!("nothing lost, nothing doubled");
    Ok(())
}

const EVENTS: [&str; 6] = [
    "forwarder killed",
    "server process killed",
    "PostgreSQL killed",
    "queue's connections cut",
    "queue stalled",
    "queue gone",
];

fn start(emulator: &Emulator, proxy: &Proxy, cluster: &Cluster) -> Result<Child> {
    let mut command = forwarder::command(emulator, NAME, &cluster.url("pgmask_forwarder", NAME))?;
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", proxy.port()));
    // What a killed one held should come again soon.
    command.args(["--visibility-timeout=10s", "--log-level=error"]).stdout(Stdio::null());
    Ok(tokio::process::Command::from(command).kill_on_drop(true).spawn()?)
}

/// How many messages a call sends.
const CALL: u64 = 10;

/// What was sent: messages are numbered.
#[derive(Default)]
struct Sent {
    number: AtomicU64,
    /// The calls that were not answered, each by its first message divided by ten: who knows whether
    /// their messages are in the queue.
    unsure: Mutex<Vec<i64>>,
}

/// Sends logins, each of a user of its own, and keeps a backlog in the queue.
async fn send(queue: Queue, sent: Arc<Sent>, enough: Arc<AtomicBool>) -> Result<()> {
    while !enough.load(Relaxed) {
        if !queue.depth().await.is_ok_and(|[visible, ..]| visible <= BACKLOG) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        for _ in 0..50 {
            let first = sent.number.fetch_add(CALL, Relaxed);
            let body = |n| {
                format!(
                    r#"{{"user_id":"{n}","app_version":"2.3.{}","device_type":"ios","ip":"198.51.100.{}","locale":"DE","device_id":"device-{}"}}"#,
                    n % 1000,
                    n % 256,
                    n % 5000
                )
            };
            if let Err(error) = queue.send(&(first..first + CALL).map(body).collect::<Vec<_>>()).await {
                println!("a call to send was not answered: {error}");
                sent.unsure.lock().await.push((first / CALL).cast_signed());
            }
        }
    }
    Ok(())
}

/// Waits for an end however long the backlog takes.
async fn wait_until_empty(queue: &Queue) -> Result<()> {
    for _ in 0..10 {
        let empty = || async { queue.depth().await.is_ok_and(|depth| depth == [0; 3]) };
        if wait_until("the queue is empty", empty).await.is_ok() {
            return Ok(());
        }
    }
    Err(format!("the queue does not get empty: {:?}", queue.depth().await?).into())
}

/// How many rows there are of the messages of some calls, or of all but these, and of how many messages.
async fn count(client: &Client, which: &str, calls: &[i64]) -> Result<[u64; 2]> {
    let sql = format!(
        "SELECT count(*), count(DISTINCT user_id) FROM user_logins WHERE user_id::bigint / {CALL} {which} ($1)"
    );
    let row = client.query_one(&sql, &[&calls]).await?;
    Ok([0, 1].map(|column| row.get::<_, i64>(column).cast_unsigned()))
}

/// Numbers without a pattern (Marsaglia, "Xorshift RNGs").
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
