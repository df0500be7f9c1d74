//! Versions as integers that sort as versions do: `M.m.p` is `M * 1_000_000 + m * 1_000 + p`.

/// The integer of a version text; `None` if it has no leading number or is out of range.
///
/// White space around the text and a leading `v` or `V` are dropped. Up to three numbers with dots
/// between them count, and those that are missing are 0; what follows (`-beta`, `rc1`, ` (4512)`, more
/// numbers) is ignored. `m` and `p` go to 999, and the whole has to fit a 32-bit integer.
pub fn to_integer(text: &str) -> Option<i32> {
    let text = text.trim();
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text).trim_start();
    let (major, rest) = leading_number(text)?;
    let (minor, rest) = next_number(rest)?;
    let (patch, _) = next_number(rest)?;
    let is_in_range = minor <= 999 && patch <= 999;
    is_in_range.then(|| major.checked_mul(1_000_000)?.checked_add(minor * 1_000 + patch)).flatten()
}

/// The version text of an integer, always with three numbers; `None` if it is negative.
pub fn to_text(version: i32) -> Option<String> {
    let version = u32::try_from(version).ok()?;
    Some(format!("{}.{}.{}", version / 1_000_000, version / 1_000 % 1_000, version % 1_000))
}

/// The number after a dot at the start of `text` and what follows it; 0 if there is none. `None` if the
/// number is past an integer.
fn next_number(text: &str) -> Option<(i32, &str)> {
    match text.strip_prefix('.') {
        Some(rest) if rest.starts_with(|next: char| next.is_ascii_digit()) => leading_number(rest),
        // Nothing that comes later is a number of this version: `2..1` is 2.
        _ => Some((0, "")),
    }
}

/// The decimal digits at the start of `text` as a number, and what follows them; `None` if there are
/// none or the number is past an integer.
fn leading_number(text: &str) -> Option<(i32, &str)> {
    let end = text.find(|next: char| !next.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn follows_the_contract() {
        for (text, expected) in [
            ("2.3.0", 2_003_000),
            ("2.3", 2_003_000),
            ("2", 2_000_000),
            ("0.96", 96_000),
            ("0.0.0", 0),
            ("02.003.1", 2_003_001),
            ("1.999.999", 1_999_999),
            ("2147.483.647", i32::MAX),
            ("00000000000000002.3", 2_003_000),
            // white space and a leading v
            (" 3.1.4\t\n", 3_001_004),
            ("v3.1.4", 3_001_004),
            ("V3.1.4", 3_001_004),
            (" v 3.1.4 ", 3_001_004),
            // what follows the numbers
            ("2.3.4-beta.5", 2_003_004),
            ("2.3+build.7", 2_003_000),
            ("2.3.0rc1", 2_003_000),
            ("3.1.4 (4512)", 3_001_004),
            ("3.1.4/iOS 19", 3_001_004),
            ("2.3.4.5.x", 2_003_004),
            ("2.3.4.99999999999", 2_003_004),
            ("2.", 2_000_000),
            ("2.3.", 2_003_000),
            ("2.x", 2_000_000),
            ("2.3.x", 2_003_000),
            ("2..1", 2_000_000),
            ("2.+1", 2_000_000),
            ("2.-1", 2_000_000),
            ("1_0", 1_000_000),
            ("2,3", 2_000_000),
            ("1-2.3", 1_000_000),
        ] {
            assert_eq!(to_integer(text), Some(expected), "{text}");
        }
        for text in [
            "",
            " ",
            ".",
            ".1",
            "x",
            "v",
            "vv2",
            "v.2",
            "version 2",
            "-1.2",
            "+1",
            "v-1",
            "٣.1",
            "true",
            "2.1000",
            "3.1.4512",
            "2.0.1000",
            "2147.483.648",
            "2148",
            "99999999999",
            "2.99999999999",
            "2.0.99999999999",
        ] {
            assert_eq!(to_integer(text), None, "{text}");
        }
        assert_eq!(to_text(2_003_000).as_deref(), Some("2.3.0"));
        assert_eq!(to_text(i32::MAX).as_deref(), Some("2147.483.647"));
        assert_eq!(to_text(-1), None);
    }

    proptest! {
        #[test]
        fn text_and_integer_are_each_others_inverse(version in 0..=i32::MAX) {
            prop_assert_eq!(to_text(version).and_then(|text| to_integer(&text)), Some(version));
        }

        #[test]
        fn sorts_as_versions_do(a in (0..2147i32, 0..1000i32, 0..1000i32), b in (0..2147i32, 0..1000i32, 0..1000i32)) {
            let integer = |(major, minor, patch)| to_integer(&format!("{major}.{minor}.{patch}")).unwrap();
            prop_assert_eq!(integer(a).cmp(&integer(b)), a.cmp(&b));
        }

        #[test]
        fn what_surrounds_the_numbers_changes_nothing(
            version in (0..2147i32, 0..1000i32, 0..1000i32),
            before in "[ \\t]{0,2}[vV]?",
            after in "([-+ _,(a-zA-Z][^\\x00]{0,10})?",
        ) {
            let (major, minor, patch) = version;
            let text = format!("{major}.{minor}.{patch}");
            prop_assert_eq!(to_integer(&format!("{before}{text}{after}")), to_integer(&text));
        }

        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = to_integer(&text);
        }
    }
}
