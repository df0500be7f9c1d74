//! `make TARGET`: checked to be a target of the Makefile, with variables that the Makefile knows.
//!
//! It is not run again here. The targets are what developers and the project's CI run: `make test` would run itself.

/// Whether the command is one of these.
pub(crate) fn is_one(command: &str) -> bool {
    command.split_whitespace().find(|word| !word.contains('=')) == Some("make")
}

/// What is wrong with it.
pub(crate) fn fault(command: &str) -> Option<String> {
    let makefile = std::fs::read_to_string(testbed::root().join("Makefile")).unwrap();
    let command = command.split(" #").next().unwrap_or_default();
    let words = command.split_whitespace().skip_while(|word| *word != "make").skip(1);
    let mut targets = 0;
    for word in words {
        if let Some((variable, _)) = word.split_once('=') {
            let is_known = ["(", " "].iter().any(|before| makefile.contains(&format!("{before}{variable}")));
            if !is_known && !makefile.starts_with(variable) {
                return Some(format!("the Makefile knows no variable {variable}"));
            }
        } else if makefile.lines().any(|line| line.split(':').next() == Some(word) && line.contains(':')) {
            targets += 1;
        } else {
            return Some(format!("the Makefile has no target {word}"));
        }
    }
    (targets == 0).then(|| "it names no target".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_the_makefile_passes() {
        assert!(is_one("make demo") && is_one("A='b' make demo") && !is_one("cmake demo"));
        assert_eq!(fault("make demo KEEP=1   # and so on"), None);
        assert!(fault("make tea").is_some());
        assert!(fault("make demo SUGAR=1").is_some());
        assert!(fault("make").is_some());
    }
}
