//! `forwarder check`: tries all that carrying messages needs, and says what to do where it fails. It
//! takes no message and leaves nothing behind, in the queue or in the database.

mod database;
mod queue;

use crate::config::Config;
use crate::error::Error;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Check everything that is needed, a line each, with the cure for what fails. Takes no message, leaves
/// no trace. Give it what the forwarder is given.
///
/// Lines start with ✓ (good), ! (works, but look at it), ✗ (failed) or - (not checked, for what failed
/// before). Exit codes: 0 nothing failed, 69 the queue or the database could not be reached, 78 the
/// set-up is wrong.
#[derive(Args, Debug, Clone, Copy)]
pub(crate) struct Check {
    /// How the findings are printed. json is one object: `{"exit_code": 0, "checks": [{"check": "queue",
    /// "result": "passed", "text": "…"}, …]}`, each result passed, warning, failed or skipped.
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    output: Output,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Output {
    /// For people.
    Text,
    /// A JSON object.
    Json,
}

/// What was found out about one thing.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    result: Outcome,
    text: String,
    #[serde(skip)]
    exit_code: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Passed,
    Warning,
    Failed,
    Skipped,
}

/// What was found out so far.
#[derive(Debug, Default, Serialize)]
struct Findings {
    exit_code: u8,
    checks: Vec<Finding>,
}

impl Findings {
    fn passed(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Outcome::Passed, text.into(), 0);
    }

    fn warning(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Outcome::Warning, text.into(), 0);
    }

    fn failed(&mut self, check: &'static str, error: &Error) {
        self.add(check, Outcome::Failed, error.to_string(), error.exit_code());
    }

    fn skipped(&mut self, checks: &[&'static str]) {
        for check in checks {
            self.add(check, Outcome::Skipped, "not checked".to_owned(), 0);
        }
    }

    /// Wrong set-up counts more than what may pass by itself, and its code is the higher one.
    fn add(&mut self, check: &'static str, result: Outcome, text: String, exit_code: u8) {
        self.exit_code = self.exit_code.max(exit_code);
        self.checks.push(Finding { check, result, text, exit_code });
    }

    fn append(&mut self, other: Self) {
        for finding in other.checks {
            self.add(finding.check, finding.result, finding.text, finding.exit_code);
        }
    }
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.checks.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        for Finding { check, result, text, .. } in &self.checks {
            let mark = match result {
                Outcome::Passed => '✓',
                Outcome::Warning => '!',
                Outcome::Failed => '✗',
                Outcome::Skipped => '-',
            };
            writeln!(f, "{mark} {check:width$}  {text}")?;
        }
        Ok(())
    }
}

/// Checks both ends and prints what was found.
#[tokio::main]
pub(crate) async fn run(config: &Config, check: Check) -> ExitCode {
    let ((mut findings, retention), (of_database, ledger_days)) =
        tokio::join!(queue::check(config), database::check(config));
    findings.append(of_database);
    compare(&mut findings, retention, ledger_days);
    let mut stdout = std::io::stdout();
    let _ = match check.output {
        Output::Text => write!(stdout, "{findings}"),
        Output::Json => writeln!(stdout, "{}", serde_json::json!(findings)),
    };
    ExitCode::from(findings.exit_code)
}

/// A message that the queue keeps for longer than the ledger knows it could be taken in twice.
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
