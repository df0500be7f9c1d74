//! Whether a program printed what the page shows.
//!
//! Words are compared, not widths: rulers and runs of spaces are no matter. The keys are always the same ones, so
//! tokens are, too. What differs from run to run may differ: tokens of later keys, days and times of this run,
//! measured seconds, ports of the loopback, and the server's version.

use time::{Duration, OffsetDateTime};

/// The words of an output, a line each.
fn words(text: &str) -> Vec<Vec<String>> {
    let ruler = |word: &String| word.bytes().all(|byte| byte == b'-' || byte == b'+');
    let lines = text.lines().map(|line| {
        let line = line.replace('|', " | ").replace(',', ", ");
        line.split_whitespace().map(str::to_owned).filter(|word| !ruler(word)).collect::<Vec<_>>()
    });
    lines.filter(|line| !line.is_empty()).collect()
}

/// Whether the two say the same.
pub(crate) fn is_alike(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (words(shown), words(printed));
    shown.len() == printed.len()
        && shown.iter().zip(&printed).all(|(shown, printed)| {
            let mut before = "";
            shown.len() == printed.len()
                && shown.iter().zip(printed).all(|(shown, printed)| {
                    let alike = is_alike_word(before, shown, printed);
                    before = shown;
                    alike
                })
        })
}

fn is_alike_word(before: &str, shown: &str, printed: &str) -> bool {
    let both = |is: fn(&str) -> bool| is(shown) && is(printed);
    let is_number = |text: &str| text.parse::<f64>().is_ok();
    let after = |mark: char| {
        let (shown, printed) = (shown.rsplit_once(mark)?, printed.rsplit_once(mark)?);
        (shown.0 == printed.0 && is_number(shown.1.trim_end_matches(['}', ','])))
            .then_some(is_number(printed.1.trim_end_matches(['}', ','])))
    };
    shown == printed
        || both(is_later_token)
        || both(is_time)
        || is_day(shown) && is_day_of_this_run(printed)
        || (shown.starts_with("\"seconds\":")
            || shown.starts_with("127.0.0.1:")
            || shown.starts_with("localhost:"))
            && after(':') == Some(true)
        || before == "PostgreSQL" && is_number(shown) && is_number(printed)
}

/// A token of a key that was made in this run, whole or cut.
fn is_later_token(word: &str) -> bool {
    let parts = word.strip_prefix('m').and_then(|rest| rest.split_once('_'));
    parts.is_some_and(|(generation, _)| generation.parse::<u32>().is_ok_and(|generation| generation > 1))
}

/// `12:34` or `12:34:56`, perhaps with more behind it.
fn is_time(word: &str) -> bool {
    let mut parts = word.split(':');
    let two_digits = |part: &str| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_digit());
    word.find(':') == Some(2) && (2..=3).contains(&parts.clone().count()) && parts.all(two_digits)
}

fn is_day(word: &str) -> bool {
    word.len() == 10 && word.starts_with("20") && word.matches('-').count() == 2
}

fn is_day_of_this_run(word: &str) -> bool {
    let now = OffsetDateTime::now_utc();
    [now, now - Duration::days(1)].iter().any(|time| time.date().to_string() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_may_differ() {
        let today = OffsetDateTime::now_utc().date();
        assert!(is_alike(" a | b \n---+---\n 1 | 2\n", "  a | b\n----+--\n  1 | 2"));
        assert!(is_alike("m2_aa… 2026-11-20 12:00:00+00", &format!("m2_bb… {today} 00:01:02.5+00")));
        assert!(is_alike(r#"{"received":3,"seconds":2.563}"#, r#"{"received":3,"seconds":1}"#));
        assert!(is_alike("PostgreSQL 15.20 at 127.0.0.1:34857,", "PostgreSQL 16.14 at 127.0.0.1:1,"));
    }

    #[test]
    fn nothing_else_may() {
        for (shown, printed) in [
            ("m1_aa…", "m1_ab…"),
            ("2026-11-20", "2026-11-21"),
            ("12.5", "12.6"),
            (" 1 | ", " | 1"),
            ("1 2", "1"),
            ("1", "1\n2"),
            (r#"{"received":3,"seconds":2.563}"#, r#"{"received":4,"seconds":2.563}"#),
        ] {
            assert!(!is_alike(shown, printed), "{shown} {printed}");
        }
    }
}
