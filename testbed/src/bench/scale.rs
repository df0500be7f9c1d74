//! What changes when there is more of everything.

use super::e2e::{carry, filled, has_rows};
use super::load::{self, Message};
use super::report::{Bound, Report, Table};
use super::{SETTINGS, ingest};
use crate::cluster::Cluster;
use crate::emulator::Emulator;
use crate::{Result, forwarder};
use std::time::{Duration, Instant, SystemTime};
use tokio_postgres::Client;

const ROUNDS: usize = 6;
const DAY: Duration = Duration::from_secs(24 * 3600);
const EMPTY_SLOT: &str =
    "SELECT 'pgmask.ledger_' || (($1::timestamptz AT TIME ZONE 'UTC')::date - '2000-01-01') % 32";
const PARTITIONED: &str = "ALTER TABLE user_logins RENAME TO logins_in_one;
    CREATE TABLE logins_in_many (LIKE logins_in_one) PARTITION BY HASH (user_id);
    DO $$ BEGIN FOR n IN 0..7 LOOP
        EXECUTE format('CREATE TABLE logins_%s PARTITION OF logins_in_many FOR VALUES WITH (MODULUS 8, REMAINDER %s)', n, n);
    END LOOP; END $$;
    GRANT INSERT ON logins_in_many TO pgmask_writer";

pub(super) async fn run(report: &mut Report) -> Result<()> {
    ledger(report).await?;
    masking(report).await?;
    forwarders(report).await
}

/// Ingest while the ledger of the day grows, beside a day whose ledger is empty; and into a partitioned table.
async fn ledger(report: &mut Report) -> Result<()> {
    const GROWN: u64 = 10_000_000;
    let mut cluster = Cluster::start(SETTINGS).await?;
    let mut client = cluster.database("bench").await?;
    // A day that is over, so that nothing else comes into its slot, and the one before.
    let (grown, empty) = (SystemTime::now() - DAY, SystemTime::now() - 2 * DAY);
    let fill = "INSERT INTO pgmask.ledger (message_id, slot, taken_day)
        SELECT gen_random_uuid(), (day - '2000-01-01') % 32, day
        FROM (SELECT ($1::timestamptz AT TIME ZONE 'UTC')::date AS day) AS t, generate_series(1, $2::bigint)";
    client.execute(fill, &[&grown, &GROWN.cast_signed()]).await?;
    // Autovacuum would do it meanwhile, on one of the cores, and once in two million messages.
    client.batch_execute("VACUUM (FREEZE, ANALYZE) pgmask.ledger").await?;
    let mut run = 0;
    for (title, buffers, least) in [("1 GB", "1GB", 0.95), ("128 MB, the default", "128MB", 0.8)] {
        client.batch_execute(&format!("ALTER SYSTEM SET shared_buffers = '{buffers}'")).await?;
        cluster.stop("INT")?;
        cluster.restart().await?;
        client = cluster.connect("bench").await?;
        client.batch_execute("CHECKPOINT").await?;
        let [mut small, mut large] = [const { Vec::new() }; 2];
        for round in 0..=ROUNDS {
            let slot = client.query_one(EMPTY_SLOT, &[&empty]).await?.get::<_, String>(0);
            client.batch_execute(&format!("TRUNCATE user_logins, {slot}")).await?;
            for (sent_at, rates) in [(empty, &mut small), (grown, &mut large)] {
                run += 1;
                let rate = rate(&client, run, sent_at).await?;
                // The first is not counted: pages are written to the log whole once after a checkpoint.
                if round > 0 {
                    rates.push(rate);
                }
            }
        }
        let mut table = Table::new(
            format!("scale: ingest, one backend, batches of 1,000, shared_buffers {title}"),
            "rows/s",
        );
        table.figure("ledger of 10 million", &large, "all of one day");
        table.figure("ledger of 0", &small, "of another day");
        table.goal("ledger of 10 million", "ledger of 0", Bound::AtLeast(least));
        report.add(table);
    }

    client.batch_execute("ALTER SYSTEM RESET shared_buffers").await?;
    cluster.stop("INT")?;
    cluster.restart().await?;
    client = cluster.connect("bench").await?;
    client.batch_execute(PARTITIONED).await?;
    let [mut plain, mut partitioned] = [const { Vec::new() }; 2];
    for round in 0..=ROUNDS {
        client.batch_execute("TRUNCATE logins_in_one, logins_in_many, pgmask.ledger").await?;
        for (name, rates) in [("logins_in_one", &mut plain), ("logins_in_many", &mut partitioned)] {
            client.batch_execute(&format!("ALTER TABLE {name} RENAME TO user_logins")).await?;
            run += 1;
            let rate = rate(&client, run, grown).await?;
            client.batch_execute(&format!("ALTER TABLE user_logins RENAME TO {name}")).await?;
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    let mut table =
        Table::new("scale: ingest into a partitioned table, one backend, batches of 1,000", "rows/s");
    table.figure("user_logins in 8 partitions", &partitioned, "");
    table.figure("user_logins in one", &plain, "");
    table.ratio("user_logins in 8 partitions", "user_logins in one");
    report.add(table);
    Ok(())
}

/// Rows a second.
async fn rate(client: &Client, run: u64, sent_at: SystemTime) -> Result<f64> {
    const ROWS: u64 = 100_000;
    let messages: Vec<Message> = (0..ROWS).map(|n| load::message(run, n)).collect();
    let time = ingest::ingest_sent_at(client, &messages, 1000, sent_at).await?;
    Ok(ROWS as f64 / time.as_secs_f64())
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
        table.figure(format!("{count}"), &[run.rate], format!("{:.1} µs of CPU a message", run.cpu));
    }
    report.add(table);
    Ok(())
}
