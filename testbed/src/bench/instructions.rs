//! How many instructions masking, parsing and ingestion take, as valgrind's callgrind counts them: a neighbour of the
//! machine changes no count, so that a few per cent are seen. What starting a program takes is not in it: it is run
//! with so many calls and with twice as many, and the difference counts.
//!
//! Valgrind knows no SHA instructions (3.19), so that hashes are computed without them: a count is to be compared with
//! another count, and tells no time.

use super::load;
use super::report::{Report, Table};
use crate::Result;
use crate::cluster::Cluster;
use clap::ValueEnum;
use pg_mask_core::keyring::Keyring;
use pg_mask_core::login;
use pg_mask_core::mask::{DEFAULT_DOMAIN, Masker};
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::process::{Command, Stdio};

const ROUNDS: usize = 3;
const CALLS: u64 = 5_000;
/// Of ingestion: messages in a batch, and batches that count in a round.
const BATCH: u64 = 1_000;
const BATCHES: u64 = 3;

/// What a program of its own does, to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Canonical form, both hashes and the token's text.
    Mask,
    /// From a message's body to a login's fields.
    Parse,
}

/// Does it so often.
pub fn work(work: Work, calls: u64) -> Result<()> {
    const DIFFERENT: u64 = 250;
    match work {
        Work::Mask => {
            let masker = Masker::new(&Keyring::generate("2026-11-21T00:00:00Z")?.0, 1, DEFAULT_DOMAIN);
            let mut token = vec![0; masker.token_len()];
            let ips: Vec<String> = (0..DIFFERENT).map(|n| format!("10.20.{n}.{}", n % 16)).collect();
            for n in 0..calls {
                let ip = &ips[(n % DIFFERENT) as usize];
                let hash = masker.hash(black_box(ip.as_bytes())).ok_or("no hash")?;
                masker.write_token(&hash, &mut token);
                black_box(&token);
            }
        }
        Work::Parse => {
            let bodies: Vec<String> = (0..DIFFERENT).map(load::body).collect();
            for n in 0..calls {
                let body = &bodies[(n % DIFFERENT) as usize];
                black_box(login::parse(black_box(body.as_bytes())).map_err(|_| "no login")?);
            }
        }
    }
    Ok(())
}

pub(super) async fn run(report: &mut Report) -> Result<()> {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("instructions are left out: valgrind is not installed");
        return Ok(());
    }
    let mut table = Table::new("instructions, without the processor's SHA instructions", "instructions");
    for (name, work) in [("mask a value", "mask"), ("parse a message", "parse")] {
        let mut counts = Vec::new();
        for _ in 0..ROUNDS {
            let counted = |calls: u64| {
                let mut command = callgrind();
                command.arg(std::env::current_exe()?).args(["work", work, &calls.to_string()]);
                collected(&mut command, "")
            };
            counts.push((counted(2 * CALLS)? - counted(CALLS)?) / CALLS as f64);
        }
        table.figure(name, &counts, "");
    }
    table.figure("ingest a message", &ingest().await?, "batches of 1,000, with reading them from a table");
    report.add(table);
    Ok(())
}

/// Of a server that runs in a single process, which is what can be counted.
async fn ingest() -> Result<Vec<f64>> {
    let mut cluster = Cluster::start(&["jit = off", "shared_buffers = 256MB"]).await?;
    let client = cluster.database("bench").await?;
    client
        .batch_execute("CREATE TABLE messages (batch bigint, id text, body text, sent_at timestamptz)")
        .await?;
    let statement =
        "INSERT INTO messages SELECT $1, id, body, now() FROM unnest($2::text[], $3::text[]) AS m (id, body)";
    // Those of each round once and twice, and one batch at each start that does not count.
    let batches = (ROUNDS as u64) * (3 * BATCHES + 2);
    for batch in 0..batches {
        let messages: Vec<_> = (0..BATCH).map(|n| load::message(1, batch * BATCH + n)).collect();
        let ids: Vec<&str> = messages.iter().map(|message| message.id.as_str()).collect();
        let bodies: Vec<&str> = messages.iter().map(|message| message.body.as_str()).collect();
        client.execute(statement, &[&(batch.cast_signed()), &ids, &bodies]).await?;
    }
    for statement in ["CREATE INDEX ON messages (batch)", "VACUUM ANALYZE messages", "CHECKPOINT"] {
        client.batch_execute(statement).await?;
    }
    drop(client);
    cluster.stop("INT")?;
    let mut next = 0;
    let mut counted = |batches: u64| {
        let mut sql = String::new();
        for batch in next..=next + batches {
            let column = |name: &str| format!("ARRAY(SELECT {name} FROM messages WHERE batch = {batch})");
            let [ids, bodies, sent_at, counts] = ["id", "body", "sent_at", "1"].map(column);
            let _ = writeln!(
                sql,
                "SELECT inserted FROM pgmask.ingest_login_batch({ids}, {bodies}, {sent_at}, {counts})"
            );
        }
        next += batches + 1;
        let mut command = cluster.shell(r#"exec "$@""#);
        command.arg("bash").arg(callgrind().get_program()).args(callgrind().get_args());
        command.arg(cluster.installation().program("postgres"));
        command.args(["--single", "-D"]).arg(cluster.data()).arg("bench");
        collected(&mut command, &sql)
    };
    let mut counts = Vec::new();
    for _ in 0..ROUNDS {
        let (once, twice) = (counted(BATCHES)?, counted(2 * BATCHES)?);
        counts.push((twice - once) / (BATCHES * BATCH) as f64);
    }
    cluster.restart().await?;
    let rows: i64 =
        cluster.connect("bench").await?.query_one("SELECT count(*) FROM user_logins", &[]).await?.get(0);
    if rows.cast_unsigned() != batches * BATCH {
        return Err(format!("{rows} rows of {} messages", batches * BATCH).into());
    }
    Ok(counts)
}

fn callgrind() -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command
}

/// The instructions of a program that is given this on its standard input.
fn collected(command: &mut Command, input: &str) -> Result<f64> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = command.spawn()?;
    running.stdin.take().ok_or("no standard input")?.write_all(input.as_bytes())?;
    let done = running.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    let count = said.lines().find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok());
    match count {
        Some(count) if done.status.success() => Ok(count),
        _ => Err(format!("{command:?}: {}\n{said}", done.status).into()),
    }
}
