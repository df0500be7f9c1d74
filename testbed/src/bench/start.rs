//! From the start of the process to the first row, from the last delete of a drain to its end, and what it costs to wait.

use super::SETTINGS;
use super::e2e::{Carrier, has_rows};
use super::load;
use super::process::{resident, used};
use super::report::{Bound, Report, Table};
use crate::cluster::Cluster;
use crate::emulator::Emulator;
use crate::queue::Queue;
use crate::{Result, forwarder};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often a forwarder is started.
const STARTS: usize = 9;
/// What a batch waits for more messages, unless it is told otherwise.
const LINGER_MS: f64 = 50.0;

pub(super) async fn run(report: &mut Report) -> Result<()> {
    const IDLE: Duration = Duration::from_secs(20);
    let emulator = Emulator::rustack().await?;
    let cluster = Cluster::start(SETTINGS).await?;
    let client = cluster.database("bench").await?;
    let url = cluster.url("pgmask_forwarder", "bench");
    let [mut starts, mut ends, mut idle, mut memory] = [const { Vec::new() }; 4];
    for start in 0..STARTS {
        let queue = Queue::create(&emulator, &format!("starting-{start}")).await?;
        queue.send(&[load::body(0)]).await?;
        let started = Instant::now();
        let carrier = spawn(forwarder::command(&emulator, &queue.name, &url)?)?;
        // Looked for without a pause, which would be part of the time.
        while client.query("SELECT FROM user_logins LIMIT 1", &[]).await?.is_empty() {}
        starts.push(started.elapsed().as_secs_f64() * 1000.0 - LINGER_MS);
        if start == 0 {
            let (before, _) = used(carrier.0.id());
            tokio::time::sleep(IDLE).await; // this is what is measured
            let (after, _) = used(carrier.0.id());
            idle.push((after - before) * 1000.0 * 60.0 / IDLE.as_secs_f64());
            memory.push(resident(carrier.0.id()));
        }
        drop(carrier);
        client.batch_execute("TRUNCATE user_logins, pgmask.ledger").await?;

        let queue = Queue::create(&emulator, &format!("ending-{start}")).await?;
        queue.send(&(0..1_000).map(load::body).collect::<Vec<_>>()).await?;
        let mut command = forwarder::command(&emulator, &queue.name, &url)?;
        command.arg("--drain");
        let mut carrier = spawn(command)?;
        while queue.depth().await? != [0, 0, 0] {}
        let emptied = Instant::now();
        tokio::task::spawn_blocking(move || carrier.0.wait()).await??;
        ends.push(emptied.elapsed().as_secs_f64() * 1000.0);
        has_rows(&client, 1_000).await?;
        client.batch_execute("TRUNCATE user_logins, pgmask.ledger").await?;
    }
    let mut table = Table::new("start: starting, ending and waiting, on rustack", "ms");
    let (first_row, end) =
        ("from start to the first row, beyond the linger", "from a drain's last delete to its end");
    table.figure(first_row, &starts, "");
    table.figure(end, &ends, "the queue is looked at twice, half a second apart");
    table.figure("CPU of an idle minute", &idle, "");
    table.absolute(first_row, Bound::AtMost(60.0));
    table.absolute(end, Bound::AtMost(700.0));
    report.add(table);
    let mut table = Table::new("start: memory of an idle forwarder", "MiB");
    table.figure("resident", &memory, "");
    table.absolute("resident", Bound::AtMost(12.0));
    report.add(table);
    Ok(())
}

fn spawn(mut command: Command) -> Result<Carrier> {
    Ok(Carrier(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
}
