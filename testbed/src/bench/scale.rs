//! What changes when there is more of everything.

use super::e2e::{Carrier, carry, filled, has_rows, used};
use super::load::{self, Message};
use super::report::{Bound, Report, Table};
use super::{SETTINGS, ingest};
use crate::cluster::Cluster;
use crate::emulator::Emulator;
use crate::guardian::wait_until;
use crate::queue::Queue;
use crate::{Result, forwarder};
use std::process::Stdio;
use std::time::{Duration, Instant};

pub(super) async fn run(report: &mut Report) -> Result<()> {
    ledger(report).await?;
    masking(report).await?;
    forwarders(report).await?;
    starting(report).await
}

/// Ingest while the ledger of the day grows; and into a partitioned table.
async fn ledger(report: &mut Report) -> Result<()> {
    const ROWS: u64 = 200_000;
    let cluster = Cluster::start(SETTINGS).await?;
    let client = cluster.database("bench").await?;
    let mut table = Table::new("scale: ingest, one backend, batches of 1000", "rows/s");
    let mut run = 0;
    let mut rate = async |before: &str, each_time: &str| -> Result<Vec<f64>> {
        client.batch_execute(before).await?;
        client.batch_execute("CHECKPOINT").await?;
        let mut rates = Vec::new();
        for round in 0..4 {
            run += 1;
            client.batch_execute(each_time).await?;
            let messages: Vec<Message> = (0..ROWS).map(|n| load::message(run, n)).collect();
            let time = ingest::ingest(&client, &messages, 1000).await?;
            // The first is not counted: pages are written to the log whole once after a checkpoint.
            if round > 0 {
                rates.push(ROWS as f64 / time.as_secs_f64());
            }
        }
        Ok(rates)
    };
    let (rows, all) = ("TRUNCATE user_logins", "TRUNCATE user_logins, pgmask.ledger");
    let grow = |rows: u64| {
        format!(
            "INSERT INTO pgmask.ledger (message_id, slot, taken_day)
             SELECT gen_random_uuid(), (today - '2000-01-01') % 32, today
             FROM (SELECT (now() AT TIME ZONE 'UTC')::date AS today) AS t,
                 generate_series(1, {rows} - (SELECT count(*) FROM pgmask.ledger))"
        )
    };
    // Not counted: the log's first files are made, which are used again later.
    rate(all, all).await?;
    let mut empty = rate(all, all).await?;
    let million = rate(&grow(1_000_000), rows).await?;
    // As many rounds as it is compared with.
    let mut ten_million = rate(&grow(10_000_000), rows).await?;
    ten_million.extend(rate("", rows).await?);
    let partitioned = "ALTER TABLE user_logins RENAME TO plain_logins;
        CREATE TABLE user_logins (LIKE plain_logins) PARTITION BY HASH (user_id);
        DO $$ BEGIN FOR n IN 0..7 LOOP
            EXECUTE format('CREATE TABLE user_logins_%s PARTITION OF user_logins FOR VALUES WITH (MODULUS 8, REMAINDER %s)', n, n);
        END LOOP; END $$";
    // Once more, as the machine may have become slower or quicker meanwhile.
    empty.extend(rate(all, all).await?);
    table.figure("ledger of 0", &empty, "before and after the others");
    table.figure("ledger of 1 million", &million, "");
    table.figure("ledger of 10 million", &ten_million, "all of one day");
    table.figure("user_logins in 8 partitions", &rate(partitioned, all).await?, "");
    table.goal("ledger of 10 million", "ledger of 0", Bound::AtLeast(0.9));
    report.add(table);
    Ok(())
}

/// A large table, masked.
async fn masking(report: &mut Report) -> Result<()> {
    const ROWS: u32 = 10_000_000;
    let cluster = Cluster::start(SETTINGS).await?;
    let client = cluster.connect("postgres").await?;
    client
        .batch_execute(&format!(
            "CREATE EXTENSION pg_mask; CREATE UNLOGGED TABLE ips AS SELECT host('10.0.0.0'::inet + n) AS v FROM generate_series(1, {ROWS}) n"
        ))
        .await?;
    client.batch_execute("VACUUM (FREEZE, ANALYZE) ips").await?;
    let mut table = Table::new(format!("scale: SELECT count(mask_pii(v)) over {ROWS} rows"), "rows/s");
    for workers in [0, 1, 2] {
        client.batch_execute(&format!("SET max_parallel_workers_per_gather = {workers}")).await?;
        let mut rates = Vec::new();
        for _ in 0..2 {
            let start = Instant::now();
            client.query_one("SELECT count(mask_pii(v)) FROM ips", &[]).await?;
            rates.push(f64::from(ROWS) / start.elapsed().as_secs_f64());
        }
        table.figure(format!("{workers} workers"), &rates, "and the leader");
    }
    report.add(table);
    Ok(())
}

/// Several forwarders on one queue.
async fn forwarders(report: &mut Report) -> Result<()> {
    const MESSAGES: u64 = 200_000;
    let emulator = Emulator::rustack().await?;
    let cluster = Cluster::start(SETTINGS).await?;
    let client = cluster.database("bench").await?;
    let mut table = Table::new("scale: forwarders on one queue, on rustack", "messages/s");
    for count in [1, 2, 4] {
        let queue = filled(&emulator, &format!("{count}-forwarders"), MESSAGES).await?;
        let url = cluster.url("pgmask_forwarder", "bench");
        let mut commands = Vec::new();
        for _ in 0..count {
            let mut command = forwarder::command(&emulator, &queue.name, &url)?;
            command.arg("--drain");
            commands.push(command);
        }
        let run = carry(commands, &queue, MESSAGES).await?;
        has_rows(&client, MESSAGES).await?;
        client.batch_execute("TRUNCATE user_logins, pgmask.ledger").await?;
        table.figure(format!("{count}"), &[run.rate], run.note());
    }
    report.add(table);
    Ok(())
}

/// From the start of the process to the first row; and what it costs to wait.
async fn starting(report: &mut Report) -> Result<()> {
    const IDLE: Duration = Duration::from_secs(20);
    let emulator = Emulator::rustack().await?;
    let cluster = Cluster::start(SETTINGS).await?;
    let client = cluster.database("bench").await?;
    let queue = Queue::create(&emulator, "starting").await?;
    queue.send(&[load::body(0)]).await?;
    let mut command = forwarder::command(&emulator, &queue.name, &cluster.url("pgmask_forwarder", "bench"))?;
    let start = Instant::now();
    let carrier = Carrier(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let there = || async {
        client
            .query_one("SELECT count(*) FROM user_logins", &[])
            .await
            .is_ok_and(|row| row.get::<_, i64>(0) == 1)
    };
    wait_until("the first row is there", there).await?;
    let mut table = Table::new("scale: starting and waiting", "ms");
    table.figure(
        "from start to the first row",
        &[start.elapsed().as_secs_f64() * 1000.0],
        "a batch waits 50 ms for more",
    );
    let (before, _) = used(carrier.0.id());
    tokio::time::sleep(IDLE).await; // this is what is measured
    let (after, peak) = used(carrier.0.id());
    table.figure(
        "CPU of an idle minute",
        &[(after - before) * 1000.0 * 60.0 / IDLE.as_secs_f64()],
        format!("at most {peak:.0} MiB"),
    );
    report.add(table);
    Ok(())
}
