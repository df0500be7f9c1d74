//! Prometheus' text format 0.0.4, made of the OpenMetrics format.

use std::collections::HashSet;

/// In the text format the metadata names a counter with its suffix, and units and the end are not written.
pub(crate) fn in_text_format(openmetrics: &str) -> String {
    let counters: HashSet<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        let mut words = line.splitn(4, ' ');
        match [words.next(), words.next(), words.next(), words.next()] {
            [Some("#"), Some("UNIT" | "EOF"), ..] => continue,
            [Some("#"), Some(keyword), Some(name), Some(rest)] if counters.contains(name) => {
                text.push_str(&format!("# {keyword} {name}_total {rest}"));
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_their_suffix_in_the_metadata_and_nothing_else_is_changed() {
        let openmetrics = "# HELP a Things.\n# TYPE a counter\na_total 1\n# HELP b_seconds Time.\n\
            # TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 0.5\n# EOF\n";
        let text = "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n# HELP b_seconds Time.\n\
            # TYPE b_seconds gauge\nb_seconds 0.5\n";
        assert_eq!(in_text_format(openmetrics), text);
    }
}
