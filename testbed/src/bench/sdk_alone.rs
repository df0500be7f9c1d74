//! What no forwarder can do without: receiving and deleting with the SDK. Alone it is the most that the queue gives; while
//! PostgreSQL takes in as many messages on the same cores, it is the most that a forwarder could reach which cost nothing.

use super::load::{self, Message};
use super::process::used;
use super::run::Run;
use crate::Result;
use crate::cluster::Cluster;
use crate::queue::Queue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_postgres::Client;

const BATCH: u64 = 1_000;
/// As many write at a time as in the forwarder.
const WRITERS: usize = 2;
const TAKE_IN: &str = "SELECT inserted FROM ready AS r, pgmask.ingest_login_batch(r.ids, r.bodies,
    array_fill(now(), ARRAY[cardinality(r.ids)]), array_fill(1, ARRAY[cardinality(r.ids)])) WHERE r.batch = $1";

/// Batches that are in PostgreSQL, as messages, so that taking them in costs a client next to nothing.
pub(super) struct Ready {
    writers: Vec<Arc<Client>>,
}

impl Ready {
    pub(super) async fn make(cluster: &Cluster, messages: u64) -> Result<Self> {
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            writers.push(Arc::new(cluster.connect("bench").await?));
        }
        let made = "CREATE TABLE ready (batch bigint PRIMARY KEY, ids text[], bodies text[]);
            ALTER TABLE ready ALTER ids SET STORAGE EXTERNAL, ALTER bodies SET STORAGE EXTERNAL";
        writers[0].batch_execute(made).await?;
        for batch in 0..messages / BATCH {
            let of_batch = (batch * BATCH..(batch + 1) * BATCH).map(|n| load::message(0, n));
            let (ids, bodies): (Vec<_>, Vec<_>) = of_batch.map(|Message { id, body }| (id, body)).unzip();
            let number = batch.cast_signed();
            writers[0].execute("INSERT INTO ready VALUES ($1, $2, $3)", &[&number, &ids, &bodies]).await?;
        }
        Ok(Self { writers })
    }

    /// Has PostgreSQL take in a batch for each number that comes.
    fn take_in(&self, numbers: mpsc::UnboundedReceiver<i64>) -> JoinSet<Result<()>> {
        let numbers = Arc::new(Mutex::new(numbers));
        let mut writing = JoinSet::new();
        for writer in &self.writers {
            let (writer, numbers) = (writer.clone(), numbers.clone());
            writing.spawn(async move {
                let statement = writer.prepare(TAKE_IN).await?;
                loop {
                    let number = numbers.lock().await.recv().await;
                    let Some(number) = number else { return Ok(()) };
                    writer.query_one(&statement, &[&number]).await?;
                }
            });
        }
        writing
    }
}

/// Receives and deletes until all messages are deleted and, `beside` that, PostgreSQL has taken in as many.
pub(super) async fn receive_and_delete(
    queue: &Queue,
    tasks: usize,
    messages: u64,
    beside: Option<&Ready>,
) -> Result<Run> {
    let (start, (before, _)) = (Instant::now(), used(std::process::id()));
    let (numbers, to_take_in) = mpsc::unbounded_channel();
    let mut writing = beside.map(|ready| ready.take_in(to_take_in)).unwrap_or_default();
    let deleted = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let (queue, deleted, numbers) = (queue.clone(), deleted.clone(), numbers.clone());
        running.spawn(async move {
            while deleted.load(Relaxed) < messages {
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
                let now = delete.set_entries(Some(entries)).send().await?.successful.len() as u64;
                let before = deleted.fetch_add(now, Relaxed);
                for batch in before / BATCH..(before + now) / BATCH {
                    let _ = numbers.send(batch.cast_signed()); // nobody listens where there is no ingestion
                }
            }
            Result::Ok(())
        });
    }
    drop(numbers);
    // Those that wait for more when all is done are not waited for: dropped, they end.
    while deleted.load(Relaxed) < messages {
        let Some(done) = running.join_next().await else { break };
        done??;
    }
    drop(running);
    while let Some(written) = writing.join_next().await {
        written??;
    }
    let rate = messages as f64 / start.elapsed().as_secs_f64();
    let (after, _) = used(std::process::id());
    Ok(Run { rate, cpu: (after - before) * 1e6 / messages as f64, memory: 0.0, servers: [0.0; 2] })
}
