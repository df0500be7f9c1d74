//! What a check finds: a line for each thing, for people or for programs.

use crate::error::Error;
use crate::telemetry::log::escaped;
use serde::Serialize;

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
pub(super) struct Findings {
    pub(super) exit_code: u8,
    checks: Vec<Finding>,
}

impl Findings {
    pub(super) fn passed(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Outcome::Passed, text.into(), 0);
    }

    pub(super) fn warning(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Outcome::Warning, text.into(), 0);
    }

    pub(super) fn failed(&mut self, check: &'static str, error: &Error) {
        self.add(check, Outcome::Failed, error.to_string(), error.kind.exit_code());
    }

    pub(super) fn skipped(&mut self, checks: &[&'static str]) {
        for check in checks {
            self.add(check, Outcome::Skipped, "not checked".to_owned(), 0);
        }
    }

    /// A wrong set-up counts more than what may pass by itself: its code is the higher one.
    fn add(&mut self, check: &'static str, result: Outcome, text: String, exit_code: u8) {
        self.exit_code = self.exit_code.max(exit_code);
        self.checks.push(Finding { check, result, text, exit_code });
    }

    pub(super) fn append(&mut self, other: Self) {
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
            writeln!(f, "{mark} {check:width$}  {}", escaped(text))?;
        }
        Ok(())
    }
}
