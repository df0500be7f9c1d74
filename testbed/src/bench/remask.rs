//! Lifting stored tokens: how many a second from one session, what ingestion beside it loses, and how the
//! table grows meanwhile. `PG_MASK_BENCH_ROWS` gives the number of rows.

use super::SETTINGS;
use super::load::{self, Message};
use super::report::{Bound, Report, Table};
use crate::Result;
use crate::cluster::Cluster;
use std::time::{Duration, Instant};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

/// What goes wrong in one of the parts that run side by side.
type Fault = Box<dyn std::error::Error + Send + Sync>;

const DEFAULT_ROWS: u64 = 1_000_000;
/// Each row has an address and a device.
const TOKENS_PER_ROW: f64 = 2.0;
/// Messages a batch of ingestion.
const BATCH: u64 = 1_000;
/// For how long ingestion is measured alone.
const ALONE: Duration = Duration::from_secs(10);
/// How often a reader counts meanwhile.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

const INGEST: &str = "SELECT inserted FROM pgmask.ingest_login_batch($1, $2, $3, $4)";
const SIZE: &str = "SELECT pg_relation_size('user_logins')";
const SAMPLE: &str = "SELECT count(DISTINCT pgmask.current_mask(masked_ip))
    FROM user_logins WHERE user_id LIKE 'stored %'";

pub(super) async fn run(report: &mut Report) -> Result<()> {
    let rows = match std::env::var("PG_MASK_BENCH_ROWS") {
        Ok(rows) => rows.parse()?,
        Err(_) => DEFAULT_ROWS,
    };
    let cluster = Cluster::start(SETTINGS).await?;
    let client = cluster.database("bench").await?;
    let (writer, reader) = (cluster.connect("bench").await?, cluster.connect("bench").await?);
    client
        .batch_execute(&format!(
            "INSERT INTO user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
             SELECT 'stored ' || n, 'android', mask_pii('10.0.0.0'::inet + n % ({rows} / 2)), mask_pii('device ' || n % 100000),
                    'DE', 2003000, '2026-11-20'
             FROM generate_series(0, {rows} - 1) n"
        ))
        .await?;
    client.batch_execute("VACUUM (ANALYZE) user_logins").await?;
    client.batch_execute("CHECKPOINT").await?;
    let size = async |client: &Client| {
        Ok::<_, Fault>(client.query_one(SIZE, &[]).await?.get::<_, i64>(0) as f64 / 1e6)
    };
    let distinct = reader.query_one(SAMPLE, &[]).await?.get::<_, i64>(0);
    let before = size(&reader).await?;
    let mut ingestion = Ingestion { client: writer, next: 0 };
    let alone = ingestion.until(Instant::now() + ALONE).await?;

    client.batch_execute("SELECT pgmask.rotate_key()").await?;
    let (tell, told) = tokio::sync::watch::channel(false);
    let lifting = async {
        let start = Instant::now();
        client.batch_execute("CALL pgmask.remask('user_logins')").await?;
        let _ = tell.send(true);
        Ok::<_, Fault>(start.elapsed())
    };
    let ingesting = async {
        let (start, first) = (Instant::now(), ingestion.next);
        while !*told.borrow() {
            ingestion.batch().await?;
        }
        Ok::<_, Fault>((ingestion.next - first) as f64 / start.elapsed().as_secs_f64())
    };
    let sampling = async {
        let (mut samples, mut largest) = (0, before);
        loop {
            let found = reader.query_one(SAMPLE, &[]).await?.get::<_, i64>(0);
            if found != distinct {
                return Err(format!("a reader counted {found} addresses, and {distinct} are stored").into());
            }
            samples += 1;
            largest = size(&reader).await?.max(largest);
            if *told.borrow() {
                return Ok::<_, Fault>((samples, largest));
            }
            let mut told = told.clone();
            let _ = tokio::time::timeout(SAMPLE_EVERY, told.wait_for(|done| *done)).await;
        }
    };
    let (took, beside, (samples, largest)) = tokio::try_join!(lifting, ingesting, sampling)?;
    let left = "SELECT count(*) FROM user_logins WHERE masked_ip NOT LIKE 'm2\\_%' OR masked_device_id NOT LIKE 'm2\\_%'";
    if client.query_one(left, &[]).await?.get::<_, i64>(0) != 0 {
        return Err("not every token was lifted".into());
    }

    let mut table = Table::new(format!("remask: {rows} rows, with ingestion beside it"), "tokens/s");
    let total = (rows as f64 + ingested_before(alone)) * TOKENS_PER_ROW;
    table.figure("CALL pgmask.remask()", &[total / took.as_secs_f64()], format!("one session, {took:.1?}"));
    table.absolute("CALL pgmask.remask()", Bound::AtLeast(100_000.0));
    report.add(table);
    let mut table = Table::new("remask: what ingestion loses, one backend, batches of 1000", "rows/s");
    table.figure("ingestion alone", &[alone], "");
    table.figure("ingestion beside remask", &[beside], "and beside a reader that counts every 5 seconds");
    report.add(table);
    let mut table = Table::new("remask: size of the table", "MB");
    table.figure("before", &[before], "");
    table.figure(
        "at most, meanwhile",
        &[largest],
        format!("with what was ingested; {samples} samples, each with all {distinct} addresses"),
    );
    client.batch_execute("VACUUM user_logins").await?;
    table.figure("after VACUUM", &[size(&reader).await?], "its free space is used again");
    report.add(table);
    Ok(())
}

/// How many rows ingestion added before remask began, at that rate.
fn ingested_before(rate: f64) -> f64 {
    rate * ALONE.as_secs_f64()
}

/// One backend that takes in batch after batch.
struct Ingestion {
    client: Client,
    next: u64,
}

impl Ingestion {
    async fn batch(&mut self) -> Result<()> {
        let messages: Vec<Message> = (self.next..self.next + BATCH).map(|n| load::message(0, n)).collect();
        let ids: Vec<&str> = messages.iter().map(|message| message.id.as_str()).collect();
        let bodies: Vec<&str> = messages.iter().map(|message| message.body.as_str()).collect();
        let sent_at = vec![load::sent_at(); messages.len()];
        let receive_counts = vec![1; messages.len()];
        let arguments: [&(dyn ToSql + Sync); 4] = [&ids, &bodies, &sent_at, &receive_counts];
        self.client.query_one(INGEST, &arguments).await?;
        self.next += BATCH;
        Ok(())
    }

    /// Rows a second until then.
    async fn until(&mut self, end: Instant) -> Result<f64> {
        let (start, first) = (Instant::now(), self.next);
        while Instant::now() < end {
            self.batch().await?;
        }
        Ok((self.next - first) as f64 / start.elapsed().as_secs_f64())
    }
}
