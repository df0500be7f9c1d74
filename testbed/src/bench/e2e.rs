//! Messages a second from a full queue to durable rows and an empty queue.

use super::report::{Bound, Report, Table};
use super::{SETTINGS, load};
use crate::cluster::Cluster;
use crate::emulator::Emulator;
use crate::guardian::wait_until;
use crate::queue::Queue;
use crate::{Result, cache, forwarder, root};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_postgres::Client;

/// How many messages each gets: enough for seconds of work at its own pace.
struct Amounts {
    forwarder: u64,
    tuned: u64,
    typical: u64,
}

/// Receives under way at once, of the ceiling, round by round; the best one counts.
const TASKS: [usize; 3] = [16, 64, 16];

pub(super) async fn run(report: &mut Report) -> Result<()> {
    let rustack = Emulator::rustack().await?;
    let fast = Amounts { forwarder: 300_000, tuned: 80_000, typical: 2_000 };
    let (rate, bounds) = ("rustack", [0.7, 100.0, 6.0]);
    compare(report, &rustack, rate, &fast, bounds, Some(40_000.0)).await?;
    drop(rustack);
    let localstack = Emulator::localstack().await?;
    let slow = Amounts { forwarder: 20_000, tuned: 10_000, typical: 500 };
    compare(report, &localstack, "LocalStack", &slow, [0.95, 0.0, 0.0], None).await
}

async fn compare(
    report: &mut Report,
    emulator: &Emulator,
    name: &str,
    amounts: &Amounts,
    [of_ceiling, of_typical, of_tuned]: [f64; 3],
    absolute: Option<f64>,
) -> Result<()> {
    let cluster = Cluster::start(SETTINGS).await?;
    let client = cluster.database("bench").await?;
    let mut table = Table::new(format!("e2e: from a full queue to durable rows, on {name}"), "messages/s");

    let truncate = "TRUNCATE user_logins, pgmask.ledger";
    let [mut forwarder, mut ceiling, mut tuned, mut typical] = [const { Vec::new() }; 4];
    for (round, tasks) in TASKS.into_iter().enumerate() {
        let queue = filled(emulator, &format!("forwarder-{round}"), amounts.forwarder).await?;
        let url = cluster.url("pgmask_forwarder", "bench");
        let mut command = forwarder::command(emulator, &queue.name, &url)?;
        command.arg("--drain");
        forwarder.push(carry(vec![command], &queue, amounts.forwarder).await?);
        has_rows(&client, amounts.forwarder).await?;
        client.batch_execute(truncate).await?;

        let queue = filled(emulator, &format!("ceiling-{round}"), amounts.forwarder).await?;
        ceiling.push(receive_and_delete(&queue, tasks, amounts.forwarder).await?);

        let queue = filled(emulator, &format!("tuned-{round}"), amounts.tuned).await?;
        let commands = (0..2).map(|_| predecessor(emulator, "tuned.py", &queue, &cluster)).collect();
        tuned.push(carry(commands, &queue, amounts.tuned).await?);
        has_rows(&client, amounts.tuned).await?;
        client.batch_execute(truncate).await?;

        let queue = filled(emulator, &format!("typical-{round}"), amounts.typical).await?;
        let command = predecessor(emulator, "typical.py", &queue, &cluster);
        typical.push(carry(vec![command], &queue, amounts.typical).await?);
        has_rows(&client, amounts.typical).await?;
        client.batch_execute(truncate).await?;
    }
    for (figure, runs) in [
        ("forwarder", forwarder),
        ("ceiling", ceiling),
        ("tuned predecessor", tuned),
        ("typical predecessor", typical),
    ] {
        let rates: Vec<f64> = runs.iter().map(|run| run.rate).collect();
        let best = runs.iter().max_by(|a, b| a.rate.total_cmp(&b.rate));
        table.figure(figure, &rates, best.map(Run::note).unwrap_or_default());
    }
    if let Some(absolute) = absolute {
        table.absolute("forwarder", Bound::AtLeast(absolute));
    }
    table.goal("forwarder", "ceiling", Bound::AtLeast(of_ceiling));
    if of_typical > 0.0 {
        table.goal("forwarder", "typical predecessor", Bound::AtLeast(of_typical));
        table.goal("forwarder", "tuned predecessor", Bound::AtLeast(of_tuned));
    }
    report.add(table);
    Ok(())
}

/// Fails unless each message has become one row.
pub(super) async fn has_rows(client: &Client, messages: u64) -> Result<()> {
    let rows: i64 = client.query_one("SELECT count(*) FROM user_logins", &[]).await?.get(0);
    if rows as u64 != messages {
        return Err(format!("{rows} rows of {messages} messages").into());
    }
    Ok(())
}

/// A queue with so many messages in it.
pub(super) async fn filled(emulator: &Emulator, name: &str, messages: u64) -> Result<Queue> {
    const SENDERS: u64 = 8;
    let queue = Queue::create(emulator, name).await?;
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let queue = queue.clone();
        let bodies: Vec<String> = (0..messages).filter(|n| n % SENDERS == sender).map(load::body).collect();
        senders.spawn(async move { queue.send(&bodies).await });
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    Ok(queue)
}

/// What it took to carry messages.
pub(super) struct Run {
    pub(super) rate: f64,
    /// Of the carrying processes, for a million messages.
    cpu_seconds: f64,
    rest: String,
}

impl Run {
    pub(super) fn note(&self) -> String {
        format!("{:.0} CPU seconds a million, {}", self.cpu_seconds, self.rest)
    }
}

/// Runs programs until the queue is empty.
pub(super) async fn carry(commands: Vec<Command>, queue: &Queue, messages: u64) -> Result<Run> {
    let start = Instant::now();
    let mut running = Vec::new();
    for mut command in commands {
        running.push(Carrier(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?));
    }
    let is_empty = || async { queue.depth().await.is_ok_and(|depth| depth == [0, 0, 0]) };
    wait_until("the queue is empty", is_empty).await?;
    let seconds = start.elapsed().as_secs_f64();
    let used: Vec<(f64, f64)> = running.iter().map(|carrier| used(carrier.0.id())).collect();
    for carrier in &mut running {
        let pid = carrier.0.id();
        // A drain ends by itself; predecessors don't know when they are done.
        let ended = || async {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), wait_until("it ends", ended)).await;
    }
    Ok(Run {
        rate: messages as f64 / seconds,
        cpu_seconds: used.iter().map(|(cpu, _)| cpu).sum::<f64>() * 1e6 / messages as f64,
        rest: format!("at most {:.0} MiB", used.iter().map(|(_, peak)| peak).sum::<f64>()),
    })
}

/// A process that ends with its value.
pub(super) struct Carrier(pub(super) Child);

impl Drop for Carrier {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU seconds that a process has used, and the most memory it had, in MiB.
pub(super) fn used(pid: u32) -> (f64, f64) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let stat = read("stat");
    // utime and stime, in ticks of 10 ms (proc(5), fields 14 and 15).
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: f64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum();
    let status = read("status");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<f64>().ok());
    (ticks / 100.0, peak.unwrap_or(0.0) / 1024.0)
}

/// The most that the SDK and the queue give: until all messages are deleted.
async fn receive_and_delete(queue: &Queue, tasks: usize, messages: u64) -> Result<Run> {
    let (start, (before, _)) = (Instant::now(), used(std::process::id()));
    let left = Arc::new(AtomicI64::new(messages.cast_signed()));
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let (queue, left) = (queue.clone(), left.clone());
        running.spawn(async move {
            while left.load(Relaxed) > 0 {
                let answer = queue
                    .client
                    .receive_message()
                    .queue_url(&queue.url)
                    .max_number_of_messages(10)
                    .wait_time_seconds(1)
                    .message_system_attribute_names("SentTimestamp".into())
                    .message_system_attribute_names("ApproximateReceiveCount".into())
                    .send()
                    .await?;
                let messages = answer.messages.unwrap_or_default();
                if messages.is_empty() {
                    continue;
                }
                let entry = |(place, message): (usize, aws_sdk_sqs::types::Message)| {
                    aws_sdk_sqs::types::DeleteMessageBatchRequestEntry::builder()
                        .id(place.to_string())
                        .receipt_handle(message.receipt_handle.unwrap_or_default())
                        .build()
                };
                let entries = messages
                    .into_iter()
                    .enumerate()
                    .map(entry)
                    .collect::<std::result::Result<Vec<_>, _>>()?;
                let delete = queue.client.delete_message_batch().queue_url(&queue.url);
                let deleted = delete.set_entries(Some(entries)).send().await?.successful.len();
                left.fetch_sub(deleted as i64, Relaxed);
            }
            Result::Ok(())
        });
    }
    // Those that wait for more when all is done are not waited for: dropped, they end.
    while left.load(Relaxed) > 0 {
        let Some(done) = running.join_next().await else { break };
        done??;
    }
    let rate = messages as f64 / start.elapsed().as_secs_f64();
    let (after, _) = used(std::process::id());
    let cpu_seconds = (after - before) * 1e6 / messages as f64;
    Ok(Run {
        rate,
        cpu_seconds,
        rest: format!("the same SDK, receive and delete alone, {tasks} tasks at once"),
    })
}

/// A predecessor as its authors describe it.
fn predecessor(emulator: &Emulator, script: &str, queue: &Queue, cluster: &Cluster) -> Command {
    let mut command = Command::new(cache().join("predecessors-1/bin/python"));
    command
        .arg(root().join("testbed/bench").join(script))
        .env_clear()
        .envs(emulator.environment())
        .env("AWS_DEFAULT_REGION", crate::emulator::REGION)
        .env("QUEUE_URL", &queue.url)
        .env("DATABASE_URL", cluster.url("postgres", "bench"));
    command
}
