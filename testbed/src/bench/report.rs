//! Tables for people, on the terminal and as Markdown, and JSON for machines.

use super::spread::Spread;
use crate::{Result, root};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

/// Everything that was measured.
#[derive(Default)]
pub(super) struct Report(pub(super) Vec<Table>);

/// Figures of one unit, some of them beside a reference among them.
pub(super) struct Table {
    pub(super) title: String,
    pub(super) unit: &'static str,
    figures: Vec<Figure>,
    ratios: Vec<Ratio>,
}

struct Figure {
    name: String,
    rounds: Vec<f64>,
    note: String,
}

/// A figure beside another, or by itself, and what it is to be.
struct Ratio {
    figure: String,
    reference: Option<String>,
    rounds: Vec<f64>,
    bound: Option<Bound>,
}

/// The side on which a goal is reached.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}

impl Ratio {
    fn what(&self) -> String {
        match &self.reference {
            Some(reference) => format!("{} ÷ {reference}", self.figure),
            None => self.figure.clone(),
        }
    }

    fn is_reached(&self) -> Option<bool> {
        Some(self.bound?.is_reached(Spread::of(&self.rounds).median))
    }
}

impl Table {
    pub(super) fn new(title: impl Into<String>, unit: &'static str) -> Self {
        Self { title: title.into(), unit, figures: Vec::new(), ratios: Vec::new() }
    }

    /// Whether more is better.
    pub(super) fn more_is_better(&self) -> bool {
        self.unit.ends_with("/s")
    }

    /// A figure, round by round.
    pub(super) fn figure(&mut self, name: impl Into<String>, rounds: &[f64], note: impl Into<String>) {
        self.figures.push(Figure { name: name.into(), rounds: rounds.to_vec(), note: note.into() });
    }

    /// A figure beside another of this table.
    pub(super) fn ratio(&mut self, figure: &str, reference: &str) {
        self.beside(figure, reference, None);
    }

    /// A figure is to be `bound` times another of this table.
    pub(super) fn goal(&mut self, figure: &str, reference: &str, bound: Bound) {
        self.beside(figure, reference, Some(bound));
    }

    /// Where both have as many rounds, they took turns: each round is a pair. Otherwise there is one ratio, of the
    /// medians.
    fn beside(&mut self, figure: &str, reference: &str, bound: Option<Bound>) {
        let (Some(of), Some(to)) = (self.rounds(figure), self.rounds(reference)) else { return };
        let rounds = if of.len() == to.len() {
            of.iter().zip(to).map(|(of, to)| of / to).collect()
        } else {
            vec![Spread::of(of).median / Spread::of(to).median]
        };
        let (figure, reference) = (figure.to_owned(), Some(reference.to_owned()));
        self.ratios.push(Ratio { figure, reference, rounds, bound });
    }

    /// A figure is to be `bound` by itself.
    pub(super) fn absolute(&mut self, figure: &str, bound: Bound) {
        let Some(rounds) = self.rounds(figure).map(<[f64]>::to_vec) else { return };
        self.ratios.push(Ratio { figure: figure.to_owned(), reference: None, rounds, bound: Some(bound) });
    }

    fn rounds(&self, name: &str) -> Option<&[f64]> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.rounds.as_slice())
    }

    /// Every figure and every ratio of two: what it is of, and its rounds.
    pub(super) fn all(&self) -> impl Iterator<Item = (String, &[f64], bool)> {
        let figures = self.figures.iter().map(|f| (f.name.clone(), f.rounds.as_slice(), false));
        let ratios = self.ratios.iter().filter(|ratio| ratio.reference.is_some());
        figures.chain(ratios.map(|ratio| (ratio.what(), ratio.rounds.as_slice(), true)))
    }

    fn print(&self) {
        println!("\n── {}", self.title);
        let width = self.ratios.iter().map(|ratio| ratio.what().chars().count()).max().unwrap_or(0);
        for ratio in &self.ratios {
            let mark = match ratio.is_reached() {
                Some(true) => "✓",
                Some(false) => "✗",
                None => " ",
            };
            let goal = ratio.bound.map(|bound| format!("  goal {bound}")).unwrap_or_default();
            println!("  {mark} {:width$}  {}{goal}", ratio.what(), Spread::of(&ratio.rounds));
        }
        let width = self.figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
        for Figure { name, rounds, note } in &self.figures {
            println!("    {name:width$}  {} {}  {note}", Spread::of(rounds), self.unit);
        }
    }

    /// Rows of a table in Markdown: each ratio and goal, then each figure that is in none of them.
    fn markdown(&self, text: &mut String) {
        let mut row = |what: &str, figure: &str, beside: &str, ratio: &str, goal: &str| {
            let what = format!("{}: {what}", self.title).replace('|', "\\|");
            let _ = writeln!(text, "| {what} | {figure} | {beside} | {ratio} | {goal} |");
        };
        let of = |name: &str| {
            let spread = self.rounds(name).map(Spread::of);
            spread.map(|spread| format!("{spread} {}", self.unit)).unwrap_or_default()
        };
        let mut told = Vec::new();
        for ratio in &self.ratios {
            let goal = ratio.is_reached().zip(ratio.bound).map(|(reached, bound)| {
                let verdict = if reached { "reached" } else { "missed" };
                format!("{bound}: {verdict}")
            });
            let (beside, value) = match &ratio.reference {
                Some(reference) => {
                    (format!("{}: {reference}", of(reference)), Spread::of(&ratio.rounds).to_string())
                }
                None => Default::default(),
            };
            row(&ratio.figure, &of(&ratio.figure), &beside, &value, &goal.unwrap_or_default());
            told.extend([Some(&ratio.figure), ratio.reference.as_ref()].into_iter().flatten());
        }
        for figure in self.figures.iter().filter(|figure| !told.contains(&&figure.name)) {
            row(&figure.name, &of(&figure.name), "", "", "");
        }
    }

    fn json(&self, measured: &Value) -> Value {
        let with_spread = |rounds: &[f64], mut value: Value| {
            let spread = Spread::of(rounds);
            value["median"] = json!(spread.median);
            value["quartiles"] = json!([spread.lower, spread.upper]);
            value["rounds"] = json!(rounds);
            value
        };
        let figures =
            self.figures.iter().map(|f| with_spread(&f.rounds, json!({"name": f.name, "note": f.note})));
        let ratios = self.ratios.iter().map(|ratio| {
            let goal = ratio.bound.map(|bound| bound.to_string());
            let of = json!({"name": ratio.what(), "goal": goal, "reached": ratio.is_reached()});
            with_spread(&ratio.rounds, of)
        });
        json!({
            "title": self.title, "unit": self.unit, "measured": measured,
            "ratios": ratios.collect::<Vec<_>>(), "figures": figures.collect::<Vec<_>>(),
        })
    }
}

impl Report {
    /// Prints a table and keeps it.
    pub(super) fn add(&mut self, table: Table) {
        table.print();
        self.0.push(table);
    }

    /// Where all figures are kept, of each table those of the run that measured it last.
    pub(super) fn path() -> PathBuf {
        root().join("target/testbed/bench.json")
    }

    /// Puts what was measured in the place of what `before` has of it.
    pub(super) fn write(&self, before: &Value) -> Result<()> {
        let measured = measured();
        let mut tables: Vec<Value> = before["tables"].as_array().cloned().unwrap_or_default();
        tables.retain(|table| self.0.iter().all(|new| table["title"] != new.title));
        tables.extend(self.0.iter().map(|table| table.json(&measured)));
        let text = serde_json::to_string_pretty(&json!({ "tables": tables }))?;
        std::fs::write(Self::path(), text + "\n")?;
        Ok(())
    }

    /// Everything in one table, as docs/performance.md has it.
    pub(super) fn markdown(&self) -> String {
        let measured = measured();
        let of = |name: &str| measured[name].as_str().unwrap_or("?").to_owned();
        let mut text = format!(
            "Measured {} at {} on {} ({} cores), PostgreSQL {}: medians, in brackets the quartiles and of how many rounds. A ratio is that of rounds that took turns.\n\n",
            of("date"),
            of("commit"),
            of("cpu"),
            measured["cores"],
            of("postgresql")
        );
        text.push_str("| | pg_mask | beside it | ratio | goal |\n|---|---:|---|---:|---|\n");
        for table in &self.0 {
            table.markdown(&mut text);
        }
        text
    }
}

/// When, what and where.
fn measured() -> Value {
    let told = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(root()).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let of_file = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_start_matches([':', ' ', '\t']).to_owned())
    };
    json!({
        "date": told("date", &["--utc", "+%Y-%m-%dT%H:%M:%SZ"]),
        "commit": told("git", &["describe", "--always", "--dirty"]),
        "cpu": of_file("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().ok().map(usize::from),
        "memory": of_file("/proc/meminfo", "MemTotal"),
        "kernel": told("uname", &["-r"]),
        "postgresql": std::fs::read_to_string(root().join("target/testbed/major")).ok().map(|major| major.trim().to_owned()),
    })
}
