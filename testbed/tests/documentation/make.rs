//! `make TARGET`, and scripts of `testbed/`: checked to be a target of the Makefile, with variables that the Makefile
//! knows, or a script that the Makefile, `make lint` or a workflow runs.
//!
//! They are not run again here. They are what developers and the project's CI run: `make test` would run itself.

/// Whether the command is one of these.
pub(crate) fn is_one(command: &str) -> bool {
    let program = program(command);
    program == "make" || program.starts_with("testbed/")
}

/// The first word that is no variable.
fn program(command: &str) -> &str {
    // A variable's value may have spaces, between quotes.
    let mut rest = command.trim_start();
    while let Some((name, value)) =
        rest.split_once('=').filter(|(name, _)| !name.contains(char::is_whitespace))
    {
        let end = if let Some(quoted) = value.strip_prefix('\'') {
            quoted.find('\'').map(|end| end + 2)
        } else {
            value.find(' ')
        };
        rest = value[end.unwrap_or(value.len())..].trim_start();
        if name.is_empty() {
            break;
        }
    }
    rest.split_whitespace().next().unwrap_or_default()
}

/// What is wrong with it.
pub(crate) fn fault(command: &str) -> Option<String> {
    match program(command) {
        "make" => target_fault(command),
        script => script_fault(script),
    }
}

fn script_fault(script: &str) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let root = testbed::root();
    let is_program = root.join(script).metadata().is_ok_and(|about| about.permissions().mode() & 0o111 != 0);
    let mut callers = vec![root.join("Makefile"), root.join("testbed/lint.sh")];
    callers
        .extend(std::fs::read_dir(root.join(".github/workflows")).unwrap().flatten().map(|file| file.path()));
    let is_run = callers.iter().any(|caller| std::fs::read_to_string(caller).unwrap().contains(script));
    (!is_program || !is_run).then(|| format!("there is no {script} that anything runs"))
}

fn target_fault(command: &str) -> Option<String> {
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
        assert!(is_one("make demo") && is_one("A='b c' B=d make demo") && !is_one("cmake demo"));
        assert!(is_one("testbed/deny.sh licenses") && fault("testbed/deny.sh licenses").is_none());
        assert!(fault("testbed/tea.sh").is_some() && fault("testbed/steps.sh").is_some());
        assert_eq!(fault("make demo KEEP=1   # and so on"), None);
        assert!(fault("make tea").is_some());
        assert!(fault("make demo SUGAR=1").is_some());
        assert!(fault("make").is_some());
    }
}
