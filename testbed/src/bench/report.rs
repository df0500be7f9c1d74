//! Tables for people, JSON for machines.

use crate::{Result, root};
use serde_json::{Value, json};
use std::process::Command;

/// Everything that was measured.
#[derive(Default)]
pub(super) struct Report(Vec<Table>);

/// Figures of one unit, each beside a reference among them.
pub(super) struct Table {
    title: String,
    unit: &'static str,
    figures: Vec<Figure>,
    goals: Vec<Goal>,
}

struct Figure {
    name: String,
    /// The best of the rounds: the work costs; the rest is what disturbed it.
    value: f64,
    rounds: Vec<f64>,
    note: String,
}

/// What a figure is to be, relative to another.
struct Goal {
    what: String,
    ratio: f64,
    bound: Bound,
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

impl Table {
    pub(super) fn new(title: impl Into<String>, unit: &'static str) -> Self {
        Self { title: title.into(), unit, figures: Vec::new(), goals: Vec::new() }
    }

    /// A figure and the rounds that it is the best of: the highest rate, or the shortest time.
    pub(super) fn figure(&mut self, name: impl Into<String>, rounds: &[f64], note: impl Into<String>) {
        let best = if self.unit.ends_with("/s") { f64::max } else { f64::min };
        let value = rounds.iter().copied().reduce(best).unwrap_or(f64::NAN);
        self.figures.push(Figure { name: name.into(), value, rounds: rounds.to_vec(), note: note.into() });
    }

    /// A figure is to be `bound` times another (of this table, by name).
    pub(super) fn goal(&mut self, figure: &str, reference: &str, bound: Bound) {
        let value = |name| self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value);
        if let (Some(figure_value), Some(reference_value)) = (value(figure), value(reference)) {
            let what = format!("{figure} ÷ {reference}");
            self.goals.push(Goal { what, ratio: figure_value / reference_value, bound });
        }
    }

    /// A figure is to be `bound` by itself.
    pub(super) fn absolute(&mut self, figure: &str, bound: Bound) {
        if let Some(found) = self.figures.iter().find(|candidate| candidate.name == figure) {
            self.goals.push(Goal { what: figure.to_owned(), ratio: found.value, bound });
        }
    }

    fn print(&self) {
        println!("\n── {}", self.title);
        let width = self.goals.iter().map(|goal| goal.what.chars().count()).max().unwrap_or(0);
        for Goal { what, ratio, bound } in &self.goals {
            let mark = if bound.is_reached(*ratio) { "✓" } else { "✗" };
            println!("  {mark} {what:width$}  {:>9}  goal {bound}", rounded(*ratio));
        }
        let width = self.figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
        for Figure { name, value, note, .. } in &self.figures {
            println!("    {name:width$}  {:>10} {}  {note}", rounded(*value), self.unit);
        }
    }

    fn json(&self) -> Value {
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|f| json!({"name": f.name, "value": f.value, "rounds": f.rounds, "note": f.note}))
            .collect();
        let goals: Vec<Value> = self
            .goals
            .iter()
            .map(|goal| json!({"what": goal.what, "value": goal.ratio, "goal": goal.bound.to_string(), "reached": goal.bound.is_reached(goal.ratio)}))
            .collect();
        json!({"title": self.title, "unit": self.unit, "goals": goals, "figures": figures})
    }
}

impl Report {
    /// Prints a table and keeps it.
    pub(super) fn add(&mut self, table: Table) {
        table.print();
        self.0.push(table);
    }

    /// Writes what was kept as JSON.
    pub(super) fn write(&self, part: Option<&str>) -> Result<()> {
        let name = part.map_or("bench.json".to_owned(), |part| format!("bench-{part}.json"));
        let path = root().join("target/testbed").join(name);
        let tables: Vec<Value> = self.0.iter().map(Table::json).collect();
        let all = json!({"measured": measured(), "tables": tables});
        std::fs::write(&path, serde_json::to_string_pretty(&all)? + "\n")?;
        println!("\nAll figures: {}", path.display());
        Ok(())
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

/// Three digits that count.
fn rounded(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
