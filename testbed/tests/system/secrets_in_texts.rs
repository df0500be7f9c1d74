//! Secrets that were put in the wrong place are in no text of the forwarder's: log, error, `check`, JSON.

use super::secured::QUEUE;
use crate::common::{cluster, ends_with, localstack};
use std::process::Command;
use testbed::forwarder::{self, Ended};
use testbed::guardian::RefusedPort;
use testbed::queue::Queue;

const SECRET: &str = "canary-tail";

async fn forwarder() -> Command {
    let url = cluster().await.url("pgmask_forwarder", "postgres");
    forwarder::command(localstack().await, QUEUE, &url).unwrap()
}

/// Runs a forwarder, which must not say the secret, in any letters.
async fn ends(mut command: Command, code: i32, saying: &str) -> Ended {
    command.args(["--log-level=trace"]);
    let ended = forwarder::run(command).await.unwrap();
    let all = format!("{}{}", ended.printed, ended.log);
    assert_eq!(ended.code, Some(code), "{all}");
    assert!(all.contains(saying), "expected {saying:?} in:\n{all}");
    assert!(!all.contains("canary") && !all.contains("CANARY"), "{all}");
    ended
}

/// The tail of a password with an @ in it was taken for a host, and shown in errors and asked of DNS.
#[tokio::test]
async fn a_password_with_special_characters_in_a_url() {
    for url in [
        "postgresql://u:pass@canary-tail@127.0.0.1/d",
        "postgresql://u:pass/canary-tail@127.0.0.1/d",
        "postgresql://u:1/canary-tail@127.0.0.1/d",
        "postgresql://u:pass?canary-tail@x@127.0.0.1/d",
        "postgresql://u:pass#canary-tail@x@127.0.0.1/d",
        "postgresql://u:pass%canary-tail@127.0.0.1/d",
        "postgresql://u:[canary-tail@127.0.0.1:x/d",
        "postgresql://u:canary-tail",
        "canary-tail",
        "mysql://u:canary-tail@127.0.0.1/d",
        "host=127.0.0.1 password=canary-tail",
        "postgresql://u@127.0.0.1/d?pasword=canary-tail",
        "postgresql://u@127.0.0.1/d?canary-tail=1",
        "postgresql://u@127.0.0.1/d?sslmode=canary-tail",
    ] {
        for arguments in [&["check"][..], &["check", "--output=json"], &["--drain"]] {
            let mut command = forwarder().await;
            command.env("DATABASE_URL", url).args(arguments);
            ends(command, 78, "database").await;
        }
    }
    let mut command = forwarder().await;
    command.args(["--drain", "--database-url", "postgresql://u:pass@canary-tail@127.0.0.1/d"]);
    ends(command, 78, "%40").await;
}

#[tokio::test]
async fn a_secret_that_was_typed_as_something_else() {
    for arguments in [
        &[SECRET][..],
        &["check", SECRET],
        &["--canary-tail"],
        &["--canary-tail=1"],
        &["--drain=canary-tail"],
        &["--receivers", SECRET],
        &["--receivers=canary-tail"],
        &["--batch-bytes", SECRET],
        &["--visibility-timeout", SECRET],
        &["--sqs-protocol", SECRET],
        &["--log-level", SECRET],
        &["--metrics-listen", SECRET],
        &["check", "--output", SECRET],
        &["--drain", "--", SECRET],
    ] {
        let mut command = forwarder().await;
        command.args(arguments);
        let ended = forwarder::run(command).await.unwrap();
        let all = format!("{}{}", ended.printed, ended.log);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {all}");
        assert!(!all.contains("canary"), "{arguments:?}: {all}");
        assert!(all.contains("--help"), "{arguments:?}: {all}");
    }
    for variable in
        ["FORWARDER_RECEIVERS", "FORWARDER_METRICS_LISTEN", "FORWARDER_LOG_FORMAT", "FORWARDER_BATCH_LINGER"]
    {
        let mut command = forwarder().await;
        command.env(variable, SECRET);
        ends(command, 2, "--").await;
    }
}

#[tokio::test]
async fn user_info_in_the_queue_s_url_and_in_endpoints() {
    for url in [
        "https://AKIA:canary-tail@sqs.eu-central-1.amazonaws.com/000000000000/q",
        "http://canary-tail@127.0.0.1/000000000000/q",
        "https://AKIA:canary/tail@127.0.0.1/000000000000/q",
    ] {
        for arguments in [&["check"][..], &["--drain"]] {
            let mut command = forwarder().await;
            command.env_remove("QUEUE_NAME").env("QUEUE_URL", url).args(arguments);
            ends(command, 2, "--queue-url").await;
        }
    }
    let address = localstack().await.endpoint().replace("http://", "");
    let endpoints = [
        format!("http://user:canary-tail@{address}"),
        format!("user:canary-tail@{address}"),
        format!("http://user:canary/tail@{address}"),
        "canary-tail".to_owned(),
        "postgresql://canary-tail".to_owned(),
        "http://canary tail".to_owned(),
    ];
    for endpoint in &endpoints {
        for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"] {
            for arguments in [&["check"][..], &["--drain"]] {
                let mut command = forwarder().await;
                command.env(variable, endpoint).args(arguments);
                ends(command, 78, variable).await;
            }
        }
    }
}

/// The SDK's own warnings and errors show the settings that it can't use, and what a program says that gives
/// credentials.
#[tokio::test]
async fn what_the_sdk_is_given_and_can_not_use() {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("profile");
    let of_profile = async |text: &str| {
        std::fs::write(&profile, format!("[default]\nregion = us-east-1\n{text}\n")).unwrap();
        let mut command = forwarder().await;
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_CONFIG_FILE", &profile).arg("--drain");
        command
    };
    let mut command = of_profile("endpoint_url = not a url canary-tail").await;
    command.env_remove("AWS_ENDPOINT_URL");
    ends(command, 78, "the AWS SDK (aws_config::default_provider::endpoint_url) can't use a setting").await;
    let mut command = of_profile("credential_process = echo canary-tail >&2; exit 3").await;
    let refused = RefusedPort::new().unwrap();
    command.env("DATABASE_URL", format!("postgresql://u@127.0.0.1:{}/d", refused.number()));
    ends(command, 69, "external process exited with code exit status: 3").await;
    for address in ["http://user:canary-tail@10.0.0.1/", "http://10.0.0.1/canary-tail", "http://canary tail"]
    {
        let mut command = of_profile("").await;
        command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", address);
        ends(command, 78, "AWS_CONTAINER_CREDENTIALS_FULL_URI").await;
    }
}

/// A proxy that can't be read was passed over without a word, and the queue asked directly.
#[tokio::test]
async fn proxies_that_are_no_urls() {
    for variable in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        for address in ["http://user:canary-tail@127.0.0.1:x y", "ftp://canary-tail", "/canary-tail"] {
            for arguments in [&["check"][..], &["--drain"]] {
                let mut command = forwarder().await;
                command.env(variable, address).args(arguments);
                ends(command, 78, &format!("{variable} is no URL")).await;
            }
        }
    }
}

/// A secret that was mounted with a line end was a panic of the SDK.
#[tokio::test]
async fn credentials_with_a_line_end() {
    for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        for value in ["canary-tail\n", "canary\u{e4}-tail", " canary-tail"] {
            let mut command = forwarder().await;
            command.env(variable, value).arg("--drain");
            ends(command, 78, &format!("{variable} has a character")).await;
        }
    }
}

/// Reading it waited for ever for whoever writes into it.
#[tokio::test]
async fn a_password_file_that_is_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe").display().to_string();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for variables in [
        &[("PGPASSWORD_FILE", pipe.as_str())][..],
        &[("PGSERVICEFILE", &pipe), ("PGSERVICE", "s")],
        &[("PGSSLROOTCERT", &pipe), ("PGSSLMODE", "verify-full")],
    ] {
        let mut command = forwarder().await;
        command.env("DATABASE_URL", "").envs(variables.iter().copied()).env("PGHOST", "127.0.0.1");
        command.env("PGPORT", cluster().await.port().to_string()).arg("check");
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), forwarder::run(command)).await;
        let ended = ended.unwrap_or_else(|_| panic!("{variables:?} hangs")).unwrap();
        assert_eq!(ended.code, Some(78), "{}{}", ended.printed, ended.log);
        assert!(ended.printed.contains("is no plain file"), "{}", ended.printed);
    }
}

/// A server's text brought a line break into the log.
#[tokio::test]
async fn control_characters_in_texts_of_others_are_escaped() {
    let name = "control_characters";
    Queue::create(localstack().await, name).await.unwrap();
    let url = cluster().await.url("no%0Asuch%1B%5B31m%C2%9Brole", "postgres");
    let odd = |character: char| character.is_control() && character != '\n';
    for format in ["text", "json"] {
        let mut command = forwarder::command(localstack().await, name, &url).unwrap();
        command.args(["--drain", &format!("--log-format={format}")]);
        let ended = ends_with(command, 78, r"no\nsuch\u").await;
        assert!(!ended.log.contains(odd) && ended.log.lines().count() == 1, "{:?}", ended.log);
    }
    let mut command = forwarder::command(localstack().await, name, &url).unwrap();
    command.arg("check");
    let ended = forwarder::run(command).await.unwrap();
    let said = ended.printed;
    assert!(said.contains(r"no\nsuch\u") && !said.contains("\nsuch") && !said.contains(odd), "{said:?}");
}
