//! `forwarder check`: tries everything that carrying messages needs, and says what to do about what fails.
//! It takes no message and leaves nothing behind, in the queue or in the database.

mod database;
mod dry_run;
mod findings;
mod queue;
mod standbys;

use crate::config::{Check, Config, Format};
use findings::Findings;
use std::io::Write;
use std::time::Duration;

/// Checks both ends and prints what was found. Returns the exit code.
pub(crate) async fn run(config: &Config, check: Check) -> u8 {
    let ((mut findings, retention), (of_database, ledger_days)) =
        tokio::join!(queue::check(config), database::check(config));
    findings.append(of_database);
    compare(&mut findings, retention, ledger_days);
    let mut stdout = std::io::stdout();
    let _ = match check.output {
        Format::Text => write!(stdout, "{findings}"),
        Format::Json => {
            let object = serde_json::json!({"exit_code": findings.exit_code(), "checks": findings});
            writeln!(stdout, "{object}")
        }
    };
    findings.exit_code()
}

/// A message that the queue keeps for longer than the ledger knows it could be stored twice.
fn compare(findings: &mut Findings, retention: Option<Duration>, ledger_days: Option<u64>) {
    const CHECK: &str = "retention";
    const DAY: u64 = 86_400;
    let (Some(retention), Some(ledger_days)) = (retention, ledger_days) else {
        return findings.skipped(&[CHECK]);
    };
    let kept = match retention.as_secs() {
        seconds if seconds.is_multiple_of(DAY) => format!("{} days", seconds / DAY),
        _ => humantime::format_duration(retention).to_string(),
    };
    // A message may be sent at the end of a day.
    let needed = retention.as_secs().div_ceil(DAY) + 1;
    if ledger_days < needed {
        findings.warning(CHECK, format!(
            "the queue keeps messages for {kept}, the ledger knows them for {ledger_days} days: one that comes again after that is taken in twice. Set pgmask.ledger_days to {needed} in postgresql.conf, or more."
        ));
    } else {
        findings.passed(
            CHECK,
            format!("the queue keeps messages for {kept}, the ledger knows them for {ledger_days} days"),
        );
    }
}
