//! Passwords come from where libpq takes them, and are never shown.

use super::secured::{PASSWORD, QUEUE, command, secured};
use crate::common::localstack;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use testbed::forwarder::{self, Ended};

const TLS: (&str, &str) = ("PGSSLMODE", "require");

fn file(folder: &Path, text: &str, mode: u32) -> String {
    let path = folder.join(format!("pgpass-{mode:o}-{}", text.len()));
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}

#[track_caller]
fn ends(ended: &Ended, code: i32, saying: &str) {
    let all = format!("{}{}", ended.printed, ended.log);
    assert_eq!(ended.code, Some(code), "{all}");
    assert!(all.contains(saying), "expected {saying:?} in:\n{all}");
    for secret in ["canary", "Y2FuYXJ5"] {
        assert!(!all.contains(secret), "{secret} in:\n{all}");
    }
}

#[tokio::test]
async fn come_from_the_environment_the_url_or_a_file() {
    let server = secured().await;
    let folder = tempfile::tempdir().unwrap();
    let line = format!("127.0.0.1:{}:secured:password_only:", server.port());
    let right = r"canary\:pass\\word";
    let with = async |variables: &[(&str, &str)]| {
        let all = [&[TLS], variables].concat();
        server.check("password_only", "127.0.0.1", &all).await
    };
    ends(&with(&[("PGPASSWORD", PASSWORD)]).await, 0, "over TLS");
    ends(
        &with(&[("PGPASSFILE", &file(folder.path(), &format!("{line}{right}\n"), 0o600))]).await,
        0,
        "over TLS",
    );
    // Others could read it.
    let open = with(&[("PGPASSFILE", &file(folder.path(), &format!("{line}{right}\n"), 0o644))]).await;
    ends(&open, 78, "chmod 600");
    ends(&open, 78, "asks for a password");
    ends(&open, 78, "is not used: others than its owner have rights to it");
    // It is for somebody else.
    let other = file(folder.path(), &format!("*:*:*:somebody:{right}\n"), 0o600);
    ends(&with(&[("PGPASSFILE", &other)]).await, 78, "has none for it");
    ends(&with(&[]).await, 78, "Give it in PGPASSWORD");
    // In its own place; a variable counts more.
    let home = folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::rename(file(folder.path(), &format!("*:*:*:*:{right}"), 0o600), home.join(".pgpass")).unwrap();
    let home = home.to_str().unwrap();
    ends(&with(&[("HOME", home)]).await, 0, "over TLS");
    ends(
        &with(&[("HOME", home), ("PGPASSWORD", "canary-wrong")]).await,
        78,
        "Check the password (PGPASSWORD)",
    );
    // As containers have it: a file with the password alone, open to all in there.
    let secret = file(folder.path(), &format!("{PASSWORD}\n"), 0o644);
    ends(&with(&[("PGPASSWORD_FILE", &secret)]).await, 0, "over TLS");
    ends(&with(&[("PGPASSWORD_FILE", "/no/such/secret")]).await, 78, "(PGPASSWORD_FILE) is not there");
    ends(&with(&[("PGPASSWORD_FILE", &file(folder.path(), "\n", 0o600))]).await, 78, "is empty");

    let url = format!("postgresql://password_only:canary%3Apass%5Cword@127.0.0.1:{}/secured", server.port());
    ends(&forwarder::run(command(&url, &[TLS]).await).await.unwrap(), 0, "over TLS");
}

#[tokio::test]
async fn that_are_wrong_end_a_start_with_78_and_are_not_shown() {
    let url = format!("postgresql://password_only@127.0.0.1:{}/secured", secured().await.port());
    let mut drain = forwarder::command(localstack().await, QUEUE, &url).unwrap();
    drain.args(["--drain", "--log-level=trace"]).env("PGPASSWORD", "canary-wrong");
    ends(&forwarder::run(drain).await.unwrap(), 78, "Check the password (PGPASSWORD)");

    let mut drain = forwarder::command(localstack().await, QUEUE, "").unwrap();
    let url = url.replace("password_only@", "password_only:canary-wrong@");
    drain.args(["--drain", "--log-level=trace", "--database-url", &url]);
    let ended = forwarder::run(drain).await.unwrap();
    ends(&ended, 78, "Check the password (in the database URL)");
    ends(&ended, 78, "the process list shows the password");
}

#[tokio::test]
async fn are_bound_to_the_tls_connection_where_asked_for() {
    let server = secured().await;
    let bound = ("PGCHANNELBINDING", "require");
    let password = ("PGPASSWORD", PASSWORD);
    let with = async |mode| {
        server.check("password_only", "127.0.0.1", &[password, bound, ("PGSSLMODE", mode)]).await
    };
    ends(&with("require").await, 0, "over TLS");
    ends(&with("disable").await, 78, "channel binding");
}
