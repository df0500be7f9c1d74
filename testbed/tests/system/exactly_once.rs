//! Whatever is killed, whenever: every message has its effect, and has it once.

use crate::common::{count, localstack};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use testbed::cluster::Cluster;
use testbed::forwarder;
use testbed::queue::Queue;

const MESSAGES: usize = 200;
/// One in so many is no login.
const BAD: usize = 20;

/// A forwarder that is killed with its test.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `PG_MASK_KILLS=200 cargo test …` for as many kills.
#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_nothing_and_double_nothing() {
    let rounds = std::env::var("PG_MASK_KILLS").map_or(9, |rounds| rounds.parse().expect("a number"));
    let mut cluster = Cluster::start(&[]).await.unwrap();
    cluster.database("exactly_once").await.unwrap();
    let queue = Queue::create(localstack().await, "exactly_once").await.unwrap();
    let url = cluster.url("pgmask_forwarder", "exactly_once");
    let mut command = forwarder::command(localstack().await, "exactly_once", &url).unwrap();
    // What a killed forwarder held comes again soon.
    command.args(["--visibility-timeout", "3s", "--batch-messages", "50"]);
    let fresh = || {
        let mut fresh = Command::new(command.get_program());
        fresh.args(command.get_args()).env_clear();
        fresh.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        fresh
    };

    let mut running = Running::start(fresh());
    let mut kills = BTreeMap::new();
    let mut under_way = 0;
    for round in 0..rounds {
        let bodies: Vec<String> = (0..MESSAGES)
            .map(|n| match n % BAD {
                0 => format!("bad {round}.{n}"),
                _ => format!(r#"{{"user_id":"{round}.{n}","ip":"10.0.0.1"}}"#),
            })
            .collect();
        let sent = tokio::spawn({
            let queue = queue.clone();
            async move { queue.send(&bodies).await }
        });
        // A random moment, while messages come in.
        tokio::time::sleep(Duration::from_millis(RandomState::new().hash_one(round) % 250)).await;
        under_way += queue.depth().await.unwrap()[1];
        let killed = match round % 3 {
            0 => {
                drop(std::mem::replace(&mut running, Running::start(fresh())));
                "forwarder"
            }
            1 => {
                let backends = backends(&cluster).await;
                for pid in &backends {
                    let _ = kill_process(*pid, Signal::KILL);
                }
                if backends.is_empty() { "no backend" } else { "backends" }
            }
            _ => {
                cluster.stop("KILL").unwrap();
                cluster.restart().await.unwrap();
                "postmaster"
            }
        };
        *kills.entry(killed).or_insert(0) += 1;
        sent.await.unwrap().unwrap();
    }
    drop(running);

    let ended = forwarder::run({
        let mut drain = fresh();
        drain.arg("--drain");
        drain
    });
    let ended = ended.await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    println!(
        "{rounds} rounds of {MESSAGES} messages, {under_way} under way when something was killed: {kills:?}; the last drain: {}",
        ended.summary
    );
    assert_eq!(queue.depth().await.unwrap(), [0, 0, 0]);
    let client = cluster.connect("exactly_once").await.unwrap();
    let bad = (rounds * MESSAGES / BAD) as i64;
    let good = (rounds * MESSAGES) as i64 - bad;
    for (expected, sql) in [
        (good, "SELECT count(*) FROM user_logins"),
        (good, "SELECT count(DISTINCT user_id) FROM user_logins"),
        (bad, "SELECT count(*) FROM pgmask.quarantine"),
        (bad, "SELECT count(DISTINCT message_id) FROM pgmask.quarantine"),
        (good + bad, "SELECT count(*) FROM pgmask.ledger"),
    ] {
        assert_eq!(count(&client, sql).await, expected, "{sql}");
    }
    // Kills that struck nothing would prove nothing.
    assert!(kills.contains_key("backends") && kills.contains_key("postmaster"), "{kills:?}");
    assert!(under_way > 0, "nothing was ever under way when something was killed");
}

/// The forwarder's server processes; none while the server recovers.
async fn backends(cluster: &Cluster) -> Vec<Pid> {
    let Ok(client) = cluster.connect("exactly_once").await else { return Vec::new() };
    let sql = "SELECT pid FROM pg_stat_activity WHERE usename = 'pgmask_forwarder'";
    let rows = client.query(sql, &[]).await.unwrap_or_default();
    rows.iter().filter_map(|row| Pid::from_raw(row.get(0))).collect()
}
