//! The middle of several rounds, and how far they are apart.

/// The median and the quartiles of some rounds, interpolated where they lie between two (Hyndman and Fan, 1996,
/// definition 7, which is what most programs do).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) rounds: usize,
}

impl Spread {
    pub(super) fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let quantile = |of: f64| {
            let at = of * sorted.len().saturating_sub(1) as f64;
            let value = |at: f64| sorted.get(at as usize).copied().unwrap_or(f64::NAN);
            value(at.floor()) + (value(at.ceil()) - value(at.floor())) * at.fract()
        };
        Self { median: quantile(0.5), lower: quantile(0.25), upper: quantile(0.75), rounds: rounds.len() }
    }

    /// How far the median of as many other rounds may be from this one by chance, in 19 cases of 20: the notch of a
    /// box plot (McGill, Tukey and Larsen, "Variations of Box Plots", 1978). `None` for a single round.
    pub(super) fn notch(&self) -> Option<f64> {
        (self.rounds > 1).then(|| 1.57 * (self.upper - self.lower) / (self.rounds as f64).sqrt())
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&rounded(self.median))?;
        if self.rounds > 1 {
            write!(f, " ({} to {} of {})", rounded(self.lower), rounded(self.upper), self.rounds)?;
        }
        Ok(())
    }
}

/// Three digits that count, and groups of thousands.
pub(super) fn rounded(value: f64) -> String {
    let decimals = match value.abs() {
        large if large >= 100.0 => return grouped(value),
        large if large >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

fn grouped(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let digits = value.abs().log10().floor() as i32 + 1;
    let unit = 10f64.powi((digits - 4).max(0));
    let whole = format!("{:.0}", (value / unit).round() * unit);
    let mut text = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && digit.is_ascii_digit() && (whole.len() - place) % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_quartiles() {
        let spread = Spread::of(&[5.0, 1.0, 2.0, 4.0, 3.0]);
        assert_eq!(spread, Spread { median: 3.0, lower: 2.0, upper: 4.0, rounds: 5 });
        assert_eq!(Spread::of(&[1.0, 2.0]), Spread { median: 1.5, lower: 1.25, upper: 1.75, rounds: 2 });
        assert_eq!(Spread::of(&[7.0]).notch(), None);
        assert!(Spread::of(&[]).median.is_nan());
    }

    #[test]
    fn as_people_read_them() {
        assert_eq!(Spread::of(&[0.31, 0.29, 0.30]).to_string(), "0.30 (0.29 to 0.30 of 3)");
        assert_eq!(Spread::of(&[12.34]).to_string(), "12.3");
        let cases = [
            (104_912.0, "104,900"),
            (1_234_567.0, "1,235,000"),
            (513.4, "513"),
            (1_406.0, "1,406"),
            (-1_500.0, "-1,500"),
        ];
        for (value, text) in cases {
            assert_eq!(rounded(value), text);
        }
    }
}
