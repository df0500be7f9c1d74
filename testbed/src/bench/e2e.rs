//! Messages a second from a full queue to durable rows and an empty queue.

use super::process::{used, used_by_server};
use super::report::{Bound, Report, Table};
use super::run::Run;
use super::sdk_alone::{Ready, receive_and_delete};
use super::{SETTINGS, load};
use crate::cluster::Cluster;
use crate::emulator::Emulator;
use crate::guardian::wait_until;
use crate::queue::Queue;
use crate::{Result, cache, forwarder, root};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_postgres::Client;

/// How many messages each gets: enough for seconds of work at its own pace.
struct Amounts {
    forwarder: u64,
    tuned: u64,
    node: u64,
    typical: u64,
}

/// How often each carries messages, unless `PG_MASK_BENCH_ROUNDS` says otherwise.
const ROUNDS: usize = 5;
/// Receives under way at once, of the ceiling: those that `--receivers auto` may settle on. The better one counts.
const TASKS: [usize; 2] = [16, 64];

/// What carries messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carries {
    Forwarder,
    /// The SDK alone, with no database.
    Ceiling,
    /// The SDK alone, while PostgreSQL takes in as many messages that it has already.
    Floor,
    Tuned,
    Node,
    Typical,
}

use Carries::{Ceiling, Floor, Forwarder, Node, Tuned, Typical};

impl Carries {
    fn name(self) -> &'static str {
        match self {
            Forwarder => "forwarder",
            Ceiling => "receive and delete alone",
            Floor => "receive and delete alone, beside the same ingestion",
            Tuned => "tuned predecessor, two processes",
            Node => "sqs-consumer, Node.js",
            Typical => "typical predecessor",
        }
    }
}

/// Goals: what the forwarder is to be beside the others. The emulator that is as slow as its clients tells less.
struct Goals {
    of_ceiling: f64,
    others: &'static [(Carries, f64)],
    absolute: Option<f64>,
}

pub(super) async fn run(report: &mut Report) -> Result<()> {
    let rustack = Emulator::rustack().await?;
    let amounts = Amounts { forwarder: 200_000, tuned: 40_000, node: 40_000, typical: 2_000 };
    let others = &[(Typical, 100.0), (Tuned, 6.0), (Node, 6.0)];
    let goals = Goals { of_ceiling: 0.8, others, absolute: Some(40_000.0) };
    compare(report, &rustack, "rustack", &amounts, &goals).await?;
    drop(rustack);
    let localstack = Emulator::localstack().await?;
    let amounts = Amounts { forwarder: 10_000, tuned: 10_000, node: 10_000, typical: 500 };
    let goals = Goals { of_ceiling: 0.95, others: &[], absolute: None };
    compare(report, &localstack, "LocalStack", &amounts, &goals).await
}

/// Has each carry messages in turn, round by round.
async fn compare(
    report: &mut Report,
    emulator: &Emulator,
    name: &str,
    amounts: &Amounts,
    goals: &Goals,
) -> Result<()> {
    let cluster = Cluster::start(SETTINGS).await?;
    let client = cluster.database("bench").await?;
    let rounds = match std::env::var("PG_MASK_BENCH_ROUNDS") {
        Ok(rounds) => rounds.parse()?,
        Err(_) => ROUNDS,
    };
    let mut all = vec![Forwarder, Ceiling, Floor, Tuned, Typical];
    let ready = Ready::make(&cluster, amounts.forwarder).await?;
    if node_modules().exists() {
        all.push(Node);
    } else {
        println!("sqs-consumer is left out: it needs Node.js 20 or newer, and npm");
    }
    let mut runs: Vec<Vec<Run>> = all.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for (carries, runs) in all.iter().zip(&mut runs) {
            let messages = match carries {
                Forwarder | Ceiling | Floor => amounts.forwarder,
                Tuned => amounts.tuned,
                Node => amounts.node,
                Typical => amounts.typical,
            };
            let name = format!("queue-{}-{round}", *carries as u8);
            let servers = || [emulator.pid(), cluster.pid()].map(used_by_server);
            if let Ceiling | Floor = carries {
                let beside = (*carries == Floor).then_some(&ready);
                let mut best: Option<Run> = None;
                for tasks in TASKS {
                    let queue = filled(emulator, &format!("{name}-{tasks}"), messages).await?;
                    let before = servers();
                    let mut run = receive_and_delete(&queue, tasks, messages, beside).await?;
                    run.servers = differences(before, servers(), messages);
                    best = best.into_iter().chain([run]).max_by(|a, b| a.rate.total_cmp(&b.rate));
                    client.batch_execute("TRUNCATE user_logins, pgmask.ledger").await?;
                }
                runs.extend(best);
                continue;
            }
            let queue = filled(emulator, &name, messages).await?;
            let commands = match carries {
                Forwarder => {
                    let url = cluster.url("pgmask_forwarder", "bench");
                    let mut command = forwarder::command(emulator, &queue.name, &url)?;
                    command.arg("--drain");
                    vec![command]
                }
                Tuned => (0..2).map(|_| predecessor(emulator, "tuned.py", &queue, &cluster)).collect(),
                Node => vec![node(emulator, &queue, &cluster)],
                _ => vec![predecessor(emulator, "typical.py", &queue, &cluster)],
            };
            let before = servers();
            let mut run = carry(commands, &queue, messages).await?;
            run.servers = differences(before, servers(), messages);
            runs.push(run);
            has_rows(&client, messages).await?;
            client.batch_execute("TRUNCATE user_logins, pgmask.ledger").await?;
        }
    }
    let mut rates = Table::new(format!("e2e: from a full queue to durable rows, on {name}"), "messages/s");
    let mut cpu = Table::new(format!("e2e: CPU of the carrying processes for a message, on {name}"), "µs");
    let mut memory = Table::new(format!("e2e: the carrying processes' memory at most, on {name}"), "MiB");
    for (carries, runs) in all.iter().zip(&runs) {
        let of = |what: fn(&Run) -> f64| runs.iter().map(what).collect::<Vec<f64>>();
        let is_sdk = matches!(carries, Ceiling | Floor);
        let note = if is_sdk { "the same SDK; the better of 16 and 64 tasks at once" } else { "" };
        rates.figure(carries.name(), &of(|run| run.rate), note);
        cpu.figure(carries.name(), &of(|run| run.cpu), note);
        if !is_sdk {
            memory.figure(carries.name(), &of(|run| run.memory), "");
        }
    }
    for (name, sdk) in [(BESIDE_THE_SDK, &runs[1]), (BESIDE_BOTH, &runs[2])] {
        let difference: Vec<f64> = runs[0].iter().zip(sdk).map(|(all, sdk)| all.cpu - sdk.cpu).collect();
        cpu.figure(name, &difference, "the difference of the two, round by round");
    }
    for (carries, runs) in all.iter().zip(&runs).take(3) {
        let of = |server: usize| runs.iter().map(|run| run.servers[server]).collect::<Vec<f64>>();
        cpu.figure(format!("{name}, for {}", carries.name()), &of(0), "the same cores");
        if *carries != Ceiling {
            cpu.figure(format!("PostgreSQL, for {}", carries.name()), &of(1), "the same cores");
        }
    }
    if let Some(absolute) = goals.absolute {
        rates.absolute(Forwarder.name(), Bound::AtLeast(absolute));
        cpu.absolute(BESIDE_THE_SDK, Bound::AtMost(3.0));
        memory.absolute(Forwarder.name(), Bound::AtMost(35.0));
    }
    rates.goal(Forwarder.name(), Ceiling.name(), Bound::AtLeast(goals.of_ceiling));
    rates.ratio(Floor.name(), Ceiling.name());
    rates.ratio(Forwarder.name(), Floor.name());
    for (carries, least) in goals.others {
        rates.goal(Forwarder.name(), carries.name(), Bound::AtLeast(*least));
    }
    for carries in &all[1..] {
        cpu.ratio(Forwarder.name(), carries.name());
    }
    report.add(rates);
    report.add(cpu);
    report.add(memory);
    Ok(())
}

const BESIDE_THE_SDK: &str = "forwarder, beside the SDK's part";
const BESIDE_BOTH: &str = "forwarder, beside the SDK's part while PostgreSQL works";

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
        cpu: used.iter().map(|(cpu, _)| cpu).sum::<f64>() * 1e6 / messages as f64,
        memory: used.iter().map(|(_, peak)| peak).sum(),
        servers: [0.0; 2],
    })
}

/// What each used in between, for a message, in µs.
fn differences(before: [f64; 2], after: [f64; 2], messages: u64) -> [f64; 2] {
    [0, 1].map(|server| (after[server] - before[server]) * 1e6 / messages as f64)
}

/// A process that ends with its value.
pub(super) struct Carrier(pub(super) Child);

impl Drop for Carrier {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A predecessor as its authors describe it.
fn predecessor(emulator: &Emulator, script: &str, queue: &Queue, cluster: &Cluster) -> Command {
    peer(cache().join("predecessors-1/bin/python"), script, emulator, queue, cluster)
}

/// The best-known consumer for Node.js.
fn node(emulator: &Emulator, queue: &Queue, cluster: &Cluster) -> Command {
    let mut command = peer("node".into(), "consumer.cjs", emulator, queue, cluster);
    command.env("NODE_PATH", node_modules());
    command
}

/// Where `testbed/tools.sh` puts what it needs, if there is Node.js.
fn node_modules() -> PathBuf {
    cache().join("node-peer-1/node_modules")
}

fn peer(program: PathBuf, script: &str, emulator: &Emulator, queue: &Queue, cluster: &Cluster) -> Command {
    let mut command = Command::new(program);
    command
        .arg(root().join("testbed/bench").join(script))
        .env_clear()
        .envs(emulator.environment())
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("AWS_DEFAULT_REGION", crate::emulator::REGION)
        .env("QUEUE_URL", &queue.url)
        .env("DATABASE_URL", cluster.url("postgres", "bench"));
    command
}
