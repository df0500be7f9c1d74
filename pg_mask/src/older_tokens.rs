//! SQL that finds tokens of older generations. It runs as a table's owner, so it calls nothing but what
//! PostgreSQL itself brings.

use std::collections::BTreeMap;

/// How many digits a token's hash has.
const DIGITS: usize = 64;

/// A condition on a text: that it is a token of a generation before `generation`, or, if those count, a hash
/// without a key. `None` if there can be no such token.
///
/// The length is compared apart, as a regular expression that counts digits takes twenty times as long.
pub(crate) fn condition(text: &str, generation: u32, with_generation_0: bool) -> Option<String> {
    let mut by_length = BTreeMap::<usize, Vec<String>>::new();
    for number in (1..generation).map(|number| number.to_string()) {
        by_length.entry("m_".len() + number.len() + DIGITS).or_default().push(number);
    }
    let with_key = by_length
        .into_iter()
        .map(|(length, numbers)| (length, format!("^m(?:{})_[0-9a-f]*$", numbers.join("|"))));
    let without_key = with_generation_0.then(|| (DIGITS, "^[0-9A-Fa-f]*$".to_owned()));
    let forms: Vec<String> = with_key
        .chain(without_key)
        .map(|(length, digits)| {
            format!(
                "pg_catalog.octet_length({text}) OPERATOR(pg_catalog.=) {length} AND {text} OPERATOR(pg_catalog.~) '{digits}'"
            )
        })
        .collect();
    (!forms.is_empty()).then(|| format!("({})", forms.join(" OR ")))
}
