//! JSON numbers as text, written as PostgreSQL's `numeric` writes them, and so `jsonb`: `1e5` is
//! `100000`. A number then has one token whether it came in a message body or as `jsonb`.

use std::borrow::Cow;

/// The most digits of a `numeric` before and after its decimal point (PostgreSQL manual, table 8.2).
const MOST_WHOLE_DIGITS: i64 = 131_072;
const MOST_FRACTION_DIGITS: i64 = 16_383;

/// The text of `number`, which follows the grammar of RFC 8259, section 6, without an exponent.
///
/// No digit is lost: `1.50` stays `1.50`, `1.50e1` is `15.0`, and `-0` is `0`. A number that no
/// `numeric` can hold comes as no `jsonb` either: it stays as it is. So the longest text that is made
/// has 147,457 bytes.
pub(super) fn plain(number: &str) -> Cow<'_, str> {
    let (negative, magnitude) = match number.strip_prefix('-') {
        Some(magnitude) => (true, magnitude),
        None => (false, number),
    };
    let (coefficient, exponent) = match magnitude.split_once(['e', 'E']) {
        Some((coefficient, exponent)) => (coefficient, Some(exponent)),
        None => (magnitude, None),
    };
    let is_zero = !coefficient.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    let Some(exponent) = exponent else { return Cow::Borrowed(if is_zero { magnitude } else { number }) };
    match shift(coefficient, exponent) {
        Some(text) if negative && !is_zero => Cow::Owned(format!("-{text}")),
        Some(text) => Cow::Owned(text),
        None => Cow::Borrowed(number),
    }
}

/// `coefficient` (digits, perhaps with a decimal point) times ten to the power of `exponent`; `None` if
/// that has too many digits.
fn shift(coefficient: &str, exponent: &str) -> Option<String> {
    let exponent: i64 = exponent.parse::<i32>().ok()?.into();
    let (whole, fraction) = coefficient.split_once('.').unwrap_or((coefficient, ""));
    let fraction_digits = (length(fraction) - exponent).max(0);
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0');
    // How many digits stand before the decimal point, leading zeros left out. If it is negative, so
    // many zeros stand between the point and the significant digits.
    let whole_digits = length(whole) + exponent - (length(&digits) - length(significant));
    let whole_digits = if significant.is_empty() { 0 } else { whole_digits };
    if whole_digits > MOST_WHOLE_DIGITS || fraction_digits > MOST_FRACTION_DIGITS {
        return None;
    }
    let before = usize::try_from(whole_digits).unwrap_or(0);
    let (whole, fraction) = significant.split_at(before.min(significant.len()));
    let mut text = String::with_capacity(before.max(1) + 1 + usize::try_from(fraction_digits).ok()?);
    text.push_str(whole);
    push_zeros(&mut text, before.max(1));
    if fraction_digits > 0 {
        text.push('.');
        let zeros = usize::try_from(fraction_digits).ok()? - fraction.len();
        let end = text.len() + zeros;
        push_zeros(&mut text, end);
        text.push_str(fraction);
    }
    Some(text)
}

fn length(digits: &str) -> i64 {
    digits.len() as i64
}

/// Appends zeros until `text` has `length` bytes.
fn push_zeros(text: &mut String, length: usize) {
    text.extend(std::iter::repeat_n('0', length.saturating_sub(text.len())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writes_what_jsonb_writes() {
        for (number, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("0e5", "0"),
            ("0e999999", "0"),
            ("-0e-3", "0.000"),
            ("0.0e1", "0"),
            ("7", "7"),
            ("-7.10", "-7.10"),
            ("12345678901234567890.50", "12345678901234567890.50"),
            ("1e5", "100000"),
            ("1E+5", "100000"),
            ("1e00000000000005", "100000"),
            ("1e0", "1"),
            ("1.50e+2", "150"),
            ("-1.50e1", "-15.0"),
            ("1.5e-3", "0.0015"),
            ("0.5e1", "5"),
            ("0.05e1", "0.5"),
            ("0.00012e3", "0.12"),
            ("10e-1", "1.0"),
            ("120e-1", "12.0"),
            ("100e-4", "0.0100"),
        ] {
            assert_eq!(plain(number), expected, "{number}");
        }
    }

    #[test]
    fn grows_no_further_than_a_numeric() {
        assert_eq!(plain("1e131071").len(), 131_072);
        assert_eq!(plain("1e-16383").len(), 16_385);
        assert_eq!(plain("0e-16383").len(), 16_385);
        for number in [
            "1e131072",
            "1e1000000",
            "-1e999999999",
            "1e99999999999",
            "1e-16384",
            "0e-16384",
            "1e-2147483648",
        ] {
            assert_eq!(plain(number), number);
        }
    }

    proptest! {
        #[test]
        fn an_exponent_moves_the_point(digits in "[1-9][0-9]{0,20}", point in 0..20usize, exponent in -30..30i32) {
            let point = point.min(digits.len() - 1);
            let (whole, fraction) = digits.split_at(digits.len() - point);
            let number = if fraction.is_empty() { format!("{whole}e{exponent}") } else { format!("{whole}.{fraction}e{exponent}") };
            let text = plain(&number).into_owned();
            // The same number again, moved back.
            let back = plain(&format!("{text}e{}", -exponent)).into_owned();
            prop_assert_eq!(back.parse::<f64>().unwrap(), number.replace(&format!("e{exponent}"), "").parse::<f64>().unwrap());
            prop_assert_eq!(text.parse::<f64>().unwrap(), number.parse::<f64>().unwrap());
            prop_assert!(!text.contains('e'));
            // And it is written once: nothing is left to be rewritten.
            prop_assert_eq!(plain(&text).into_owned(), text);
        }

        #[test]
        fn never_panics(number in "-?(0|[1-9][0-9]{0,5})(\\.[0-9]{1,5})?([eE][-+]?[0-9]{1,12})?") {
            prop_assert!(plain(&number).len() <= 147_457);
        }
    }
}
