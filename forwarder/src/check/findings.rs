//! What a check finds: a line for each thing, for people or for programs.

use crate::error::Error;
use safe_output::log::escaped;
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
#[serde(transparent)]
pub(super) struct Findings(Vec<Finding>);

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

    fn add(&mut self, check: &'static str, result: Outcome, text: String, exit_code: u8) {
        self.0.push(Finding { check, result, text, exit_code });
    }

    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// A wrong set-up counts more than what may pass by itself: its code is the higher one.
    pub(super) fn exit_code(&self) -> u8 {
        self.0.iter().map(|finding| finding.exit_code).max().unwrap_or(0)
    }
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.0.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        for Finding { check, result, text, .. } in &self.0 {
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
