//! Versions as integers that sort as versions do: `M.m.p` is `M * 1_000_000 + m * 1_000 + p`.

/// The integer of a version text; `None` if it is none or out of range.
///
/// Missing parts are 0, a suffix from the first `-` or `+` on is dropped, parts after the third are
/// ignored. `m` and `p` go to 999, and the whole has to fit an `integer`.
pub fn to_integer(text: &str) -> Option<i32> {
    let version = text.split(['-', '+']).next()?;
    let mut parts = version.split('.');
    let major = number(parts.next()?)?;
    let minor = parts.next().map_or(Some(0), small_number)?;
    let patch = parts.next().map_or(Some(0), small_number)?;
    major.checked_mul(1_000_000)?.checked_add(minor * 1_000 + patch)
}

/// The version text of an integer, always with three parts; `None` if it is negative.
pub fn to_text(version: i32) -> Option<String> {
    let version = u32::try_from(version).ok()?;
    Some(format!("{}.{}.{}", version / 1_000_000, version / 1_000 % 1_000, version % 1_000))
}

fn small_number(digits: &str) -> Option<i32> {
    number(digits).filter(|number| *number <= 999)
}

fn number(digits: &str) -> Option<i32> {
    // `parse` alone would take a sign.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
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
            ("2.3.4-beta.5", 2_003_004),
            ("2.3+build.7", 2_003_000),
            ("2.3.4.5.x", 2_003_004),
            ("02.003.1", 2_003_001),
            ("1.999.999", 1_999_999),
            ("2147.483.647", i32::MAX),
        ] {
            assert_eq!(to_integer(text), Some(expected), "{text}");
        }
        for text in [
            "",
            ".",
            "x",
            "v2.3",
            "-1.2",
            "+1",
            " 2.3",
            "2.3 ",
            "2.",
            "2..1",
            "2.x",
            "2.3.0rc1",
            "2.1000",
            "2.0.1000",
            "2147.483.648",
            "2148",
            "99999999999",
            "2.99999999999",
            "٣.1",
            "1_0",
            "2.+1",
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
        fn never_panics(text in any::<String>()) {
            let _ = to_integer(&text);
        }
    }
}
