//! Bar charts in a terminal, as wide as it is: in colours where it has them (`NO_COLOR` is honoured), and in plain
//! characters where the output is no terminal.

use console::{Alignment, Style, Term, measure_text_width, pad_str};

/// A chart of horizontal bars.
pub(super) struct Chart {
    pub(super) title: String,
    /// A label and a number each.
    pub(super) bars: Vec<(String, u64)>,
}

/// How charts are drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Canvas {
    columns: usize,
    is_terminal: bool,
    has_colours: bool,
}

/// From so many columns on, charts stand beside each other.
const WIDE: usize = 110;
/// Longer bars are harder to read.
const WIDEST: usize = 160;
const BETWEEN: usize = 4;
/// Eighths of a character, from one to seven, and a whole one.
const BLOCKS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

impl Canvas {
    /// Standard output's.
    pub(super) fn stdout() -> Self {
        let terminal = Term::stdout();
        let columns = terminal.size_checked().map_or(80, |(_, columns)| columns.into());
        Self { columns, is_terminal: terminal.is_term(), has_colours: console::colors_enabled() }
    }

    /// The lines of charts: below each other, or the first beside the others where there is room.
    pub(super) fn draw(self, charts: &[Chart]) -> Vec<String> {
        let width = self.columns.min(WIDEST);
        let below = |charts: &[Chart], width| {
            let drawn: Vec<Vec<String>> = charts.iter().map(|chart| self.draw_one(chart, width)).collect();
            drawn.join(&String::new())
        };
        let (Some((first, others)), WIDE..) = (charts.split_first(), width) else {
            return below(charts, width);
        };
        let half = (width - BETWEEN) / 2;
        let (left, right) = (self.draw_one(first, half), below(others, half));
        let line = |lines: &[String], at: usize| lines.get(at).cloned().unwrap_or_default();
        (0..left.len().max(right.len()))
            .map(|at| {
                let padded = pad_str(&line(&left, at), half + BETWEEN, Alignment::Left, None).into_owned();
                (padded + &line(&right, at)).trim_end().to_owned()
            })
            .collect()
    }

    fn draw_one(self, chart: &Chart, width: usize) -> Vec<String> {
        let style = |style: Style| style.force_styling(self.has_colours);
        let longest =
            |texts: &mut dyn Iterator<Item = &str>| texts.map(measure_text_width).max().unwrap_or(0);
        let numbers: Vec<String> = chart.bars.iter().map(|(_, number)| number.to_string()).collect();
        let labels = longest(&mut chart.bars.iter().map(|(label, _)| label.as_str()));
        let digits = longest(&mut numbers.iter().map(String::as_str));
        // A label, a number and a bar, with a space between each.
        let room = width.saturating_sub(labels + digits + 2);
        let most = chart.bars.iter().map(|(_, number)| *number).max().unwrap_or(0).max(1);
        let mut lines = vec![style(Style::new().bold()).apply_to(&chart.title).to_string()];
        for ((label, number), digits_of_it) in chart.bars.iter().zip(&numbers) {
            let bar = self.bar(*number, most, room);
            lines.push(format!(
                "{} {} {}",
                pad_str(label, labels, Alignment::Left, None),
                pad_str(digits_of_it, digits, Alignment::Right, None),
                style(Style::new().cyan()).apply_to(bar)
            ));
        }
        lines
    }

    fn bar(self, number: u64, most: u64, room: usize) -> String {
        let eighths =
            usize::try_from(u128::from(number) * (room as u128 * 8) / u128::from(most)).unwrap_or(0);
        if !self.is_terminal {
            return "#".repeat((eighths / 8).max(usize::from(number > 0 && room > 0)));
        }
        let mut bar = BLOCKS[7].to_string().repeat(eighths / 8);
        bar.extend(BLOCKS.get((eighths % 8).wrapping_sub(1)));
        bar
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charts() -> Vec<Chart> {
        let bars = |bars: &[(&str, u64)]| {
            bars.iter().map(|(label, number)| ((*label).to_owned(), *number)).collect()
        };
        vec![
            Chart {
                title: "logins a day".to_owned(),
                bars: bars(&[("Mon 16", 200), ("Tue 17", 100), ("Wed 18", 0)]),
            },
            Chart { title: "devices".to_owned(), bars: bars(&[("m1_aaaa…", 3)]) },
        ]
    }

    fn canvas(columns: usize) -> Canvas {
        Canvas { columns, is_terminal: true, has_colours: false }
    }

    #[test]
    fn bars_are_as_long_as_numbers_are_large() {
        let lines = canvas(30).draw(&charts());
        assert_eq!(lines[1], format!("Mon 16 200 {}", "█".repeat(19)));
        assert_eq!(lines[2], format!("Tue 17 100 {}▌", "█".repeat(9)));
        assert_eq!(lines[3], "Wed 18   0 ");
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        for columns in [0, 5, 20, 60, 80, 109, 110, 140, 300] {
            for line in canvas(columns).draw(&charts()) {
                // What is left of a terminal that is narrower than the labels are the labels.
                assert!(measure_text_width(&line) <= columns.max("logins a day".len()), "{columns}: {line}");
            }
        }
        let is_wide = |columns| canvas(columns).draw(&charts())[0].contains("devices");
        assert!(is_wide(140) && !is_wide(60));
    }

    #[test]
    fn without_a_terminal_it_is_plain_text() {
        let lines = Canvas { is_terminal: false, ..canvas(80) }.draw(&charts()).concat();
        assert!(lines.contains("####") && !lines.contains('█') && !lines.contains('\u{1b}'));
    }

    #[test]
    fn colours_are_there_when_they_are_wanted() {
        let coloured =
            |has_colours| Canvas { has_colours, ..canvas(80) }.draw(&charts()).concat().contains('\u{1b}');
        assert!(coloured(true) && !coloured(false));
    }
}
