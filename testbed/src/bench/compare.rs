//! What has changed since an earlier run, beyond noise.

use super::report::{Report, Table};
use super::spread::Spread;
use serde_json::Value;

/// Less than this is no change, whatever the rounds say: two runs differ by more than the rounds of one do, as where
/// things lie in memory is another each time. Neighbours of a machine don't reach a ratio of rounds that took turns,
/// nor a count; they make what is timed by itself up to half as slow again.
const COUNTED: f64 = 0.005;
const IN_TURNS: f64 = 0.05;
const TIMED: f64 = 0.5;

/// A figure or ratio that is another than before.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    pub(super) is_worse: bool,
    text: String,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = if self.is_worse { "worse " } else { "better" };
        write!(f, "{mark}  {}", self.text)
    }
}

/// The changes since the run whose JSON this is, and how much was compared.
pub(super) fn changes(before: &Value, report: &Report) -> (Vec<Change>, usize) {
    let mut changes = Vec::new();
    let mut compared = 0;
    for table in &report.0 {
        let all = before["tables"].as_array();
        let Some(old) = all.and_then(|all| all.iter().find(|old| old["title"] == table.title)) else {
            continue;
        };
        for (name, rounds, is_ratio) in table.all() {
            let Some(old) = old_rounds(old, &name, is_ratio) else { continue };
            compared += 1;
            changes.extend(change(table, &name, is_ratio, &old, rounds));
        }
    }
    (changes, compared)
}

fn old_rounds(table: &Value, name: &str, is_ratio: bool) -> Option<Vec<f64>> {
    let list = table[if is_ratio { "ratios" } else { "figures" }].as_array()?;
    let found = list.iter().find(|entry| entry["name"] == name)?;
    Some(found["rounds"].as_array()?.iter().filter_map(Value::as_f64).collect())
}

fn change(table: &Table, name: &str, is_ratio: bool, old: &[f64], new: &[f64]) -> Option<Change> {
    let (old, new) = (Spread::of(old), Spread::of(new));
    let least = match table.unit {
        "instructions" => COUNTED,
        _ if is_ratio => IN_TURNS,
        "MiB" => IN_TURNS,
        _ => TIMED,
    };
    // More by half is as far as less by a third.
    let factor = new.median / old.median;
    let by_chance = old.notch().unwrap_or(0.0) + new.notch().unwrap_or(0.0);
    if factor.max(1.0 / factor) <= 1.0 + least || (new.median - old.median).abs() <= by_chance {
        return None;
    }
    let text = format!("{}: {name}: {old} → {new}, {:+.1} %", table.title, (factor - 1.0) * 100.0);
    Some(Change { is_worse: (factor < 1.0) == table.more_is_better(), text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What has changed from some rounds to others: `b` always has 100, so that `a`'s rounds are the ratio's per cent.
    fn changed(unit: &'static str, old: &[f64], new: &[f64]) -> Vec<(String, bool)> {
        let table = |rounds: &[f64]| {
            let mut table = Table::new("t", unit);
            table.figure("a", rounds, "");
            table.figure("b", &vec![100.0; rounds.len()], "");
            table.ratio("a", "b");
            let mut report = Report::default();
            report.0.push(table);
            report
        };
        let before = json!({ "tables": [json_of(&table(old))] });
        let (changes, compared) = changes(&before, &table(new));
        assert_eq!(compared, 3);
        changes
            .into_iter()
            .map(|change| (change.text.split(": ").nth(1).unwrap_or_default().to_owned(), change.is_worse))
            .collect()
    }

    fn json_of(report: &Report) -> Value {
        let list = |ratios| {
            let all = report.0[0].all().filter(|(_, _, is_ratio)| *is_ratio == ratios);
            all.map(|(name, rounds, _)| json!({"name": name, "rounds": rounds})).collect::<Vec<_>>()
        };
        json!({"title": "t", "figures": list(false), "ratios": list(true)})
    }

    #[test]
    fn what_is_within_the_spread_is_no_change() {
        assert_eq!(changed("ns", &[90.0, 100.0, 130.0], &[100.0, 110.0, 140.0]), []);
        assert_eq!(changed("ns", &[100.0, 100.0, 100.0], &[104.0, 104.0, 104.0]), []);
    }

    #[test]
    fn a_ratio_is_judged_more_strictly_than_what_is_timed_by_itself() {
        let slower = changed("ns", &[100.0, 101.0, 102.0], &[109.0, 110.0, 111.0]);
        assert_eq!(slower, [("a ÷ b".to_owned(), true)]);
        let fewer = changed("rows/s", &[100.0, 101.0, 102.0], &[60.0, 61.0, 62.0]);
        assert_eq!(fewer, [("a".to_owned(), true), ("a ÷ b".to_owned(), true)]);
        let more = changed("rows/s", &[100.0, 101.0, 102.0], &[120.0, 121.0, 122.0]);
        assert_eq!(more, [("a ÷ b".to_owned(), false)]);
    }

    #[test]
    fn a_count_is_judged_most_strictly_and_a_single_round_by_its_size_alone() {
        let counted = changed("instructions", &[1000.0], &[1010.0]);
        assert_eq!(counted, [("a".to_owned(), true), ("a ÷ b".to_owned(), true)]);
        assert_eq!(changed("instructions", &[1000.0], &[1004.0]), []);
    }
}
