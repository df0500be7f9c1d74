//! What masking costs a row over a bare scan, beside what people do instead.

use super::SETTINGS;
use super::report::{Bound, Report, Table};
use crate::Result;
use crate::cluster::Cluster;
use pg_mask_core::keyring::Keyring;
use pg_mask_core::mask::{DEFAULT_DOMAIN, Masker};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

const ROWS: u32 = 1_000_000;
/// How often the server is started, and how many rounds each has then: where things happen to lie in
/// memory makes a difference, and is another each time.
const STARTS: usize = 4;
const ROUNDS: usize = 3;

/// A masking extension as there are many: a salt from a setting, a digest of both, encoded.
const USUAL: &str = "CREATE FUNCTION usual_digest(seed text, salt text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
        $$ SELECT pg_catalog.encode(public.digest(pg_catalog.concat(seed, salt), 'sha256'), 'hex') $$;
    CREATE FUNCTION usual_mask(seed text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = '' AS
        $$ SELECT public.usual_digest(seed, pg_catalog.current_setting('usual.salt')) $$";
const SESSION: &str = "SET usual.salt = 'a salt of thirty-two characters!';
    SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0";
const WORKERS: [(u32, &str); 2] = [(0, "one backend"), (2, "two parallel workers")];

const EXPRESSIONS: [(&str, &str); 8] = [
    ("scan", "v"),
    ("mask_pii(text)", "mask_pii(v)"),
    ("mask_pii(inet)", "mask_pii(i)"),
    ("encode(sha256(bytea), 'hex')", "encode(sha256(b), 'hex')"),
    ("encode(sha256(text::bytea), 'hex')", "encode(sha256(v::bytea), 'hex')"),
    (
        "pgcrypto encode(hmac(), 'hex')",
        "encode(hmac(v, 'a key of thirty-two characters!!', 'sha256'), 'hex')",
    ),
    ("md5()", "md5(v)"),
    ("the usual masking function", "usual_mask(v)"),
];

pub(super) async fn run(report: &mut Report) -> Result<()> {
    let mut cluster = Cluster::start(SETTINGS).await?;
    let client = cluster.connect("postgres").await?;
    client
        .batch_execute(
            "CREATE EXTENSION pg_mask; CREATE EXTENSION pgcrypto; SET client_min_messages = warning",
        )
        .await?;
    client.batch_execute(USUAL).await?;
    client
        .batch_execute(&format!(
            "CREATE TABLE ips AS SELECT host(i) AS v, i, host(i)::bytea AS b FROM (SELECT '10.0.0.0'::inet + n AS i FROM generate_series(1, {ROWS}) n) s"
        ))
        .await?;
    client.batch_execute("VACUUM (FREEZE, ANALYZE) ips").await?;
    let mut times = [const { [const { Vec::new() }; EXPRESSIONS.len()] }; WORKERS.len()];
    for start in 0..STARTS {
        cluster.stop("INT")?;
        cluster.restart().await?;
        let client = cluster.connect("postgres").await?;
        client.batch_execute(SESSION).await?;
        for ((workers, _), times) in WORKERS.iter().zip(&mut times) {
            client.batch_execute(&format!("SET max_parallel_workers_per_gather = {workers}")).await?;
            for round in 0..ROUNDS {
                for ((_, expression), times) in EXPRESSIONS.iter().zip(times.iter_mut()) {
                    // It is twenty times slower: once is enough to know.
                    if start + round > 0 && expression.starts_with("usual") {
                        continue;
                    }
                    let begin = Instant::now();
                    client.query_one(&format!("SELECT count({expression}) FROM ips"), &[]).await?;
                    times.push(begin.elapsed());
                }
            }
        }
    }
    for ((workers, title), times) in WORKERS.into_iter().zip(times) {
        let mut table =
            Table::new(format!("mask: cost of a row over a bare scan, {ROWS} rows, {title}"), "ns");
        let scans = times[0].clone();
        for ((name, _), times) in EXPRESSIONS.iter().zip(&times).skip(1) {
            let cost = |(time, scan): (&Duration, &Duration)| {
                (time.as_secs_f64() - scan.as_secs_f64()) * 1e9 / f64::from(ROWS)
            };
            let costs: Vec<f64> = times.iter().zip(&scans).map(cost).collect();
            table.figure(*name, &costs, "");
        }
        if workers == 0 {
            table.figure("floor: three times SHA-256", &floor(), "in a loop, without any server");
            table.figure("floor: pg_mask's core", &core()?, "canonical form and both hashes, the same");
            table.goal("mask_pii(text)", "encode(sha256(bytea), 'hex')", Bound::AtMost(0.30));
            table.goal("mask_pii(text)", "pgcrypto encode(hmac(), 'hex')", Bound::AtMost(0.18));
            table.ratio("mask_pii(text)", "floor: three times SHA-256");
        }
        report.add(table);
    }
    Ok(())
}

/// The time of one hash of a value, and of the two blocks that a keyed hash with prepared keys adds.
fn floor() -> Vec<f64> {
    per_call(|n| {
        let block = n.to_ne_bytes();
        let mut hash = Sha256::digest(block);
        hash = Sha256::digest(hash);
        Sha256::digest(hash)[0]
    })
}

fn core() -> Result<Vec<f64>> {
    let masker = Masker::new(&Keyring::generate("2026-11-21T00:00:00Z")?.0, 1, DEFAULT_DOMAIN);
    let ips: Vec<String> = (0..1000).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
    Ok(per_call(|n| masker.hash(ips[n as usize % ips.len()].as_bytes()).map_or(0, |hash| hash[0])))
}

/// Nanoseconds, round by round.
fn per_call(mut call: impl FnMut(u32) -> u8) -> Vec<f64> {
    let mut times = Vec::new();
    let mut sum = 0u8;
    for _ in 0..STARTS * ROUNDS {
        let start = Instant::now();
        for n in 0..ROWS {
            sum = sum.wrapping_add(std::hint::black_box(call(n)));
        }
        times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(ROWS));
    }
    std::hint::black_box(sum);
    times
}
