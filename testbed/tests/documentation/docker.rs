//! `docker …`: needs an engine, so it is not run here. `make compose-test` goes through these commands with one.
//!
//! Here each is compared with the files: the services and profiles are those of docker-compose.yaml, what is done to
//! a service is something that `testbed/compose_test.sh` does, too, and files, stages and volumes are there.

/// Whether the command is one of these.
pub(crate) fn is_one(command: &str) -> bool {
    command.starts_with("docker ")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(testbed::root().join(path)).unwrap()
}

/// What is wrong with it.
pub(crate) fn fault(command: &str) -> Option<String> {
    let words: Vec<&str> =
        command.split(" #").next().unwrap_or_default().split_whitespace().skip(1).collect();
    match words.first().copied() {
        Some("compose") => compose_fault(&words[1..]),
        Some("volume" | "run") => volumes_fault(&words),
        Some("build") => build_fault(&words),
        other => Some(format!("nothing here knows docker {other:?}")),
    }
}

fn compose_fault(words: &[&str]) -> Option<String> {
    let (file, test) = (read("docker-compose.yaml"), read("testbed/compose_test.sh"));
    let mut words = words.iter();
    let mut word = *words.next()?;
    while word == "--profile" {
        let profile = words.next()?.trim_matches('\'');
        if profile != "*" && !file.contains(&format!("profiles: [{profile}")) {
            return Some(format!("docker-compose.yaml has no profile {profile}"));
        }
        word = words.next()?;
    }
    if !test
        .lines()
        .any(|line| line.contains("compose ") && line.split_whitespace().any(|other| other == word))
    {
        return Some(format!("compose_test.sh never does docker compose {word}"));
    }
    // The first word that is no option is the service; those of `--entrypoint=…` are options.
    let service = words.find(|word| !word.starts_with('-'));
    match service {
        Some(service) if !file.contains(&format!("\n  {service}:\n")) => {
            Some(format!("docker-compose.yaml has no service {service}"))
        }
        _ => None,
    }
}

fn volumes_fault(words: &[&str]) -> Option<String> {
    let file = read("docker-compose.yaml");
    let volumes = words.iter().filter_map(|word| word.split(':').next()?.strip_prefix("pg_mask_"));
    let of_file = |volume: &str| file.contains(&format!("\n  {volume}:"));
    let mut unknown = volumes.filter(|volume| !of_file(volume.strip_suffix("_before").unwrap_or(volume)));
    unknown.next().map(|volume| format!("docker-compose.yaml has no volume {volume}"))
}

fn build_fault(words: &[&str]) -> Option<String> {
    let after = |option: &str| words.iter().skip_while(|word| **word != option).nth(1).copied();
    let dockerfile = std::fs::read_to_string(testbed::root().join(after("--file")?));
    let Ok(dockerfile) = dockerfile else { return Some("there is no such file".to_owned()) };
    let stage = after("--target")?;
    (!dockerfile.contains(&format!(" AS {stage}\n"))).then(|| format!("it has no stage {stage}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_the_files_passes() {
        assert_eq!(fault("docker compose --profile monitoring up --detach --wait"), None);
        assert_eq!(fault("docker compose exec -T postgres psql -U postgres"), None);
        for wrong in [
            "docker compose exec -T mysql psql",
            "docker compose --profile tea up --detach",
            "docker compose brew postgres",
            "docker volume rm pg_mask_tea",
            "docker build --file deploy/docker/Dockerfile --target tea .",
            "docker push it",
        ] {
            assert!(fault(wrong).is_some(), "{wrong}");
        }
    }
}
