//! `--receivers auto` beside each fixed number of receivers, with a short and a long queue.

use super::SETTINGS;
use super::e2e::{carry, filled, has_rows};
use super::report::{Bound, Report, Table};
use super::spread::Spread;
use crate::cluster::Cluster;
use crate::emulator::Emulator;
use crate::{Result, forwarder};

const AUTO: &str = "auto";
const FIXED: [&str; 7] = ["1", "2", "4", "8", "16", "32", "64"];
/// Messages, and rounds.
const SHORT: (u64, usize) = (100_000, 5);
const LONG: (u64, usize) = (1_000_000, 3);

pub(super) async fn run(report: &mut Report) -> Result<()> {
    let emulator = Emulator::rustack().await?;
    let cluster = Cluster::start(SETTINGS).await?;
    let client = cluster.database("bench").await?;
    let mut fixed = FIXED.to_vec();
    for (messages, rounds) in [SHORT, LONG] {
        let mut all = vec![AUTO];
        all.extend(&fixed);
        let mut rates: Vec<Vec<f64>> = all.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            for (receivers, rates) in all.iter().zip(&mut rates) {
                let queue = filled(&emulator, &format!("{messages}-{round}-{receivers}"), messages).await?;
                let mut command =
                    forwarder::command(&emulator, &queue.name, &cluster.url("pgmask_forwarder", "bench"))?;
                command.args(["--drain", "--receivers", receivers]);
                rates.push(carry(vec![command], &queue, messages).await?.rate);
                has_rows(&client, messages).await?;
                client.batch_execute("TRUNCATE user_logins, pgmask.ledger").await?;
            }
        }
        let mut best: Vec<(&str, f64)> =
            fixed.iter().zip(&rates[1..]).map(|(name, rates)| (*name, Spread::of(rates).median)).collect();
        best.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut table = Table::new(format!("receivers: {messages} messages, on rustack"), "messages/s");
        for (receivers, rates) in all.iter().zip(&rates) {
            table.figure(*receivers, rates, "");
        }
        table.goal(AUTO, best[0].0, Bound::AtLeast(0.97));
        report.add(table);
        // With a long queue, beside the one that was best with a short one.
        fixed = vec![best[0].0];
    }
    Ok(())
}
