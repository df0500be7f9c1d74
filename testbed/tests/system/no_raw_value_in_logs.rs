//! The forwarder's log holds no value of a message and no secret, however much it is asked to say.

use crate::common::{Way, cluster, ends_with, localstack};
use testbed::forwarder;

#[tokio::test]
async fn the_forwarder_says_nothing_of_what_it_carries() {
    let way = Way::new("says_nothing").await;
    let canaries = ["198.18.77.32", "canary-device-77aa", "canary-user"];
    let [ip, device, user] = canaries;
    let body = format!(r#"{{"user_id":"{user}","ip":"{ip}","device_id":"{device}"}}"#);
    let cut = body[..body.len() - 1].to_owned();
    way.queue.send(&[body, cut]).await.unwrap();
    let mut command = way.drain().await;
    command
        .env("FORWARDER_LOG_LEVEL", "trace")
        .env("RUST_LOG", "trace")
        .env("AWS_SECRET_ACCESS_KEY", "canary-secret");
    let ended = forwarder::run(command).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(ended.log.contains("batch committed"), "{}", ended.log);
    for canary in canaries.iter().chain(&["canary-secret"]) {
        assert!(!ended.log.contains(canary), "{canary} in:\n{}", ended.log);
    }
    assert_eq!(ended.summary["quarantined"], 1);
    assert!(!ended.log.contains("may log"), "{}", ended.log);
}

#[tokio::test]
async fn a_role_whose_messages_the_server_may_log_is_warned_of() {
    let way = Way::new("warned_of").await;
    let make = "DROP ROLE IF EXISTS may_be_logged; CREATE ROLE may_be_logged LOGIN IN ROLE pgmask_ingester";
    way.database.batch_execute(make).await.unwrap();
    let mut command = way.drain().await;
    command.env("DATABASE_URL", cluster().await.url("may_be_logged", way.name));
    ends_with(command, 0, "the server may log the messages").await;
}

#[tokio::test]
async fn an_error_of_the_table_shows_no_row() {
    let way = Way::new("shows_no_row").await;
    way.database
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = 'undefined_table', DETAIL = NEW::text; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await
        .unwrap();
    way.queue.send(&[r#"{"user_id":"canary-user"}"#.to_owned()]).await.unwrap();
    let mut command = way.drain().await;
    command.arg("--log-level=trace");
    let ended = ends_with(command, 78, "42P01").await;
    assert!(!ended.log.contains("canary-user"), "{}", ended.log);
}

#[tokio::test]
async fn a_password_is_never_shown() {
    let url = cluster().await.url("pgmask_forwarder:canary-password", "no_such_database");
    let mut command = forwarder::command(localstack().await, "no-such-queue", &url).unwrap();
    command.args(["--drain", "--log-level=trace"]);
    let ended = ends_with(command, 78, "The specified queue does not exist").await;
    assert!(!ended.log.contains("canary-password"), "{}", ended.log);
    let mut command = forwarder::command(localstack().await, "no-such-queue", &url).unwrap();
    command.args(["--help"]);
    let ended = forwarder::run(command).await.unwrap();
    assert!(!ended.log.contains("canary-password"));
}
