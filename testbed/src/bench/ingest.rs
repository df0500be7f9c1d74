//! Rows a second of one backend, in batches of several sizes: pg_mask, the same in plain SQL, and the
//! limit: COPY of ready rows and of ready ledger entries. Each batch is a transaction, and durable.

use super::SETTINGS;
use super::load::{self, Message};
use super::process;
use super::report::{Bound, Report, Table};
use crate::Result;
use crate::cluster::Cluster;
use bytes::Bytes;
use futures_util::SinkExt;
use std::time::{Duration, Instant, SystemTime};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

/// The size of a batch, and how many rows are taken in by batches of that size.
const SIZES: [(usize, u64); 5] =
    [(1, 2_000), (10, 20_000), (100, 100_000), (1_000, 200_000), (10_000, 200_000)];
/// Each is the first, the second and the last of a round as often.
const ROUNDS: u64 = 6;

/// What somebody would write without an extension: a key in a setting, a ledger, one statement.
const PLAIN: &str = "CREATE TABLE plain_logins (LIKE user_logins);
    CREATE TABLE plain_ledger (sent_day date, message_id uuid, PRIMARY KEY (sent_day, message_id));
    SET plain.key = 'a key of thirty-two characters!!'";
const PLAIN_INGEST: &str = "WITH given AS (
        SELECT id::uuid AS id, body::jsonb AS body, (sent_at AT TIME ZONE 'UTC')::date AS day
        FROM unnest($1, $2, $3) AS given(id, body, sent_at)
    ), fresh AS (
        INSERT INTO plain_ledger SELECT day, id FROM given ON CONFLICT DO NOTHING RETURNING message_id
    )
    INSERT INTO plain_logins
    SELECT body->>'user_id', body->>'device_type',
        encode(hmac(body->>'ip', current_setting('plain.key'), 'sha256'), 'hex'),
        encode(hmac(body->>'device_id', current_setting('plain.key'), 'sha256'), 'hex'),
        body->>'locale',
        split_part(body->>'app_version', '.', 1)::int * 1000000 + split_part(body->>'app_version', '.', 2)::int * 1000
            + coalesce(nullif(split_part(body->>'app_version', '.', 3), '')::int, 0),
        day
    FROM given JOIN fresh ON fresh.message_id = given.id";

const INGEST: &str = "SELECT inserted FROM pgmask.ingest_login_batch($1, $2, $3, $4)";
const COPY_ROWS: &str = "COPY copied_logins FROM STDIN";
const COPY_LEDGER: &str = "COPY copied_ledger FROM STDIN";

pub(super) async fn run(report: &mut Report) -> Result<()> {
    let cluster = Cluster::start(SETTINGS).await?;
    let client = cluster.database("bench").await?;
    client
        .batch_execute(
            "CREATE EXTENSION pgcrypto; CREATE TABLE copied_logins (LIKE user_logins);
             CREATE TABLE copied_ledger (LIKE pgmask.ledger, PRIMARY KEY (message_id)); SET jit = off",
        )
        .await?;
    client.batch_execute(PLAIN).await?;
    const EMPTY: &str = "TRUNCATE user_logins, pgmask.ledger, plain_logins, plain_ledger, copied_logins, copied_ledger; CHECKPOINT";
    for (size, rows) in SIZES {
        let messages = |run: u64| (0..rows).map(|n| load::message(run, n)).collect::<Vec<Message>>();
        client.batch_execute(EMPTY).await?;
        ingest(&client, &messages(ROUNDS), size).await?; // not counted; the rows that it makes are copied
        let ready = ready(&client, rows, size).await?;
        let [mut ours, mut plain, mut limit] = [const { Vec::new() }; 3];
        let mut handing_in = Vec::new();
        for round in 0..ROUNDS {
            client.batch_execute(EMPTY).await?;
            let messages = messages(round);
            // Nobody is always the first after a checkpoint, nor always the last.
            for turn in 0..3 {
                match (turn + round) % 3 {
                    0 => {
                        let before = process::used(std::process::id()).0;
                        ours.push(ingest(&client, &messages, size).await?);
                        let used = process::used(std::process::id()).0 - before;
                        handing_in.push(used * 1e6 / rows as f64);
                    }
                    1 => plain.push(plain_sql(&client, &messages, size).await?),
                    _ => limit.push(copy(&client, &ready).await?),
                }
            }
        }
        let mut table = Table::new(format!("ingest: one backend, batches of {size}"), "rows/s");
        let rates = |times: &[Duration]| {
            times.iter().map(|time| rows as f64 / time.as_secs_f64()).collect::<Vec<f64>>()
        };
        table.figure("pgmask.ingest_login_batch()", &rates(&ours), "parse, mask twice, ledger, quarantine");
        table.figure("plain SQL", &rates(&plain), "jsonb, pgcrypto hmac twice, ON CONFLICT ledger");
        table.figure("limit", &rates(&limit), "COPY of ready rows, COPY into the ledger");
        if size == 1_000 {
            table.goal("pgmask.ingest_login_batch()", "limit", Bound::AtLeast(0.8));
            table.goal("pgmask.ingest_login_batch()", "plain SQL", Bound::AtLeast(1.5));
        } else {
            table.ratio("pgmask.ingest_login_batch()", "limit");
            table.ratio("pgmask.ingest_login_batch()", "plain SQL");
        }
        report.add(table);
        if size == 1_000 {
            let mut table = Table::new("ingest: CPU of a client that hands in ready batches", "µs");
            table.figure("for a message", &handing_in, "tokio-postgres and the kernel: no client has less");
            report.add(table);
        }
    }
    vault(report, &cluster).await
}

/// The same with the vault on, once all values are known, beside the same without it.
async fn vault(report: &mut Report, cluster: &Cluster) -> Result<()> {
    const SIZE: usize = 1_000;
    const ROWS: u64 = 200_000;
    let without = cluster.connect("bench").await?;
    let with = cluster.connect("bench").await?;
    with.batch_execute("LOAD 'pg_mask'; SET pgmask.vault = on; SET jit = off").await?;
    without.batch_execute("SET jit = off").await?;
    let messages = |run: u64| (0..ROWS).map(|n| load::message(run, n)).collect::<Vec<Message>>();
    // Not counted: the first keeps the values, the second learns that they are there.
    for run in 100..102 {
        with.batch_execute("TRUNCATE user_logins, pgmask.ledger").await?;
        with.batch_execute("VACUUM ANALYZE pgmask.vault").await?;
        ingest(&with, &messages(run), SIZE).await?;
    }
    let [mut on, mut off] = [const { Vec::new() }; 2];
    for round in 0..2 * ROUNDS {
        with.batch_execute("TRUNCATE user_logins, pgmask.ledger").await?;
        with.batch_execute("CHECKPOINT").await?;
        let (client, times) = if round % 2 == 0 { (&with, &mut on) } else { (&without, &mut off) };
        times.push(ROWS as f64 / ingest(client, &messages(200 + round), SIZE).await?.as_secs_f64());
    }
    let mut table = Table::new("ingest: the vault, all values known".to_owned(), "rows/s");
    table.figure("vault on", &on, "each of 400,000 values is there already");
    table.figure("vault off", &off, "pgmask.ingest_login_batch() as above");
    table.goal("vault on", "vault off", Bound::AtLeast(0.67));
    report.add(table);
    Ok(())
}

/// How long it takes to take messages in, batch by batch.
pub(super) async fn ingest(client: &Client, messages: &[Message], size: usize) -> Result<Duration> {
    ingest_sent_at(client, messages, size, load::sent_at()).await
}

/// The same for messages that were sent at a given time.
pub(super) async fn ingest_sent_at(
    client: &Client,
    messages: &[Message],
    size: usize,
    sent_at: SystemTime,
) -> Result<Duration> {
    let statement = client.prepare(INGEST).await?;
    let sent_at = vec![sent_at; size];
    let counts = vec![1i32; size];
    let start = Instant::now();
    for batch in messages.chunks(size) {
        let (ids, bodies) = columns(batch);
        let inserted: i64 = client
            .query_one(&statement, &[&ids, &bodies, &&sent_at[..batch.len()], &&counts[..batch.len()]])
            .await?
            .get(0);
        if inserted != batch.len() as i64 {
            return Err(format!("{inserted} of {} were inserted", batch.len()).into());
        }
    }
    Ok(start.elapsed())
}

async fn plain_sql(client: &Client, messages: &[Message], size: usize) -> Result<Duration> {
    let types = [Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::TIMESTAMPTZ_ARRAY];
    let statement = client.prepare_typed(PLAIN_INGEST, &types).await?;
    let sent_at = vec![load::sent_at(); size];
    let start = Instant::now();
    for batch in messages.chunks(size) {
        let (ids, bodies) = columns(batch);
        let arguments: [&(dyn ToSql + Sync); 3] = [&ids, &bodies, &&sent_at[..batch.len()]];
        client.execute(&statement, &arguments).await?;
    }
    Ok(start.elapsed())
}

fn columns(batch: &[Message]) -> (Vec<&str>, Vec<&str>) {
    batch.iter().map(|message| (message.id.as_str(), message.body.as_str())).unzip()
}

/// Rows and ledger entries as COPY's text, batch by batch.
async fn ready(client: &Client, rows: u64, size: usize) -> Result<Vec<[Bytes; 2]>> {
    let batches = async |sql: &str| -> Result<Vec<Bytes>> {
        let found = client.query(sql, &[]).await?;
        if found.len() as u64 != rows {
            return Err(format!("{} rows where {rows} were expected", found.len()).into());
        }
        let lines: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        Ok(lines.chunks(size).map(|batch| batch.concat().into()).collect())
    };
    let logins = "SELECT concat_ws(E'\\t', user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date) || E'\\n' FROM user_logins";
    let ledger = "SELECT concat_ws(E'\\t', message_id, slot, taken_day) || E'\\n' FROM pgmask.ledger";
    let (logins, ledger) = (batches(logins).await?, batches(ledger).await?);
    Ok(logins.into_iter().zip(ledger).map(|(logins, ledger)| [logins, ledger]).collect())
}

/// Three waits a batch, the least with COPY: what needs no answer to go on is sent beside the next.
async fn copy(client: &Client, batches: &[[Bytes; 2]]) -> Result<Duration> {
    let (copy_rows, copy_ledger) = (client.prepare(COPY_ROWS).await?, client.prepare(COPY_LEDGER).await?);
    let start = Instant::now();
    for [rows, ledger] in batches {
        let ((), sink) = tokio::try_join!(client.batch_execute("BEGIN"), client.copy_in(&copy_rows))?;
        let mut sink = std::pin::pin!(sink);
        sink.send(rows.clone()).await?;
        let (_, next) = tokio::try_join!(sink.as_mut().finish(), client.copy_in(&copy_ledger))?;
        let mut sink = std::pin::pin!(next);
        sink.send(ledger.clone()).await?;
        tokio::try_join!(sink.as_mut().finish(), client.batch_execute("COMMIT"))?;
    }
    Ok(start.elapsed())
}
