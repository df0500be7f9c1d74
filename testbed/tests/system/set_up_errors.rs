//! A wrong set-up says what is wrong and what to do, and no message is lost over it.

use crate::common::{Way, cluster, ends_with, localstack};
use testbed::forwarder;
use testbed::guardian::RefusedPort;

#[tokio::test]
async fn without_the_table_the_message_stays_and_the_file_is_named() {
    let way = Way::new("without_table").await;
    way.database.batch_execute("DROP TABLE user_logins CASCADE").await.unwrap();
    way.queue.send(&[r#"{"user_id":"u"}"#.to_owned()]).await.unwrap();
    ends_with(way.drain().await, 78, "sql/01_user_logins.sql").await;
    assert_eq!(way.queue.depth().await.unwrap(), [1, 0, 0]);
}

#[tokio::test]
async fn a_table_that_goes_while_draining_ends_it_and_releases_what_is_held() {
    let way = Way::new("table_goes").await;
    // The set-up is fine when the forwarder looks, and no longer when it writes.
    way.database
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'gone' USING ERRCODE = 'undefined_table'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await
        .unwrap();
    way.queue.send(&vec![r#"{"user_id":"u"}"#.to_owned(); 25]).await.unwrap();
    let ended = ends_with(way.drain().await, 78, "42P01").await;
    assert_eq!(ended.summary["released"], ended.summary["received"], "{}", ended.log);
    assert_eq!(way.queue.depth().await.unwrap(), [25, 0, 0]);
    assert_eq!(way.count("SELECT count(*) FROM pgmask.ledger").await, 0);
}

#[tokio::test]
async fn without_the_extension_the_command_is_named() {
    let way = Way::new("without_extension").await;
    way.database.batch_execute("DROP EXTENSION pg_mask CASCADE").await.unwrap();
    ends_with(way.drain().await, 78, "CREATE EXTENSION pg_mask").await;
}

/// Of two errors the queue's alone was reported, so a forwarder waited for its queue, and said only then what nobody but a DBA can set right.
#[tokio::test]
async fn what_is_wrong_with_one_end_shows_while_the_other_is_out() {
    let way = Way::new("one_end_out").await;
    let refused = RefusedPort::new().unwrap();
    let nowhere = format!("127.0.0.1:{}", refused.number());
    let database_out = format!("postgresql://u@{nowhere}/d");
    let queue_out = format!("http://{nowhere}");
    let (no_queue, no_extension) = ("Check the queue's name", "CREATE EXTENSION pg_mask");
    way.database.batch_execute("DROP EXTENSION pg_mask CASCADE").await.unwrap();
    for (name, value, saying) in
        [("AWS_ENDPOINT_URL", &queue_out, no_extension), ("DATABASE_URL", &database_out, no_queue)]
    {
        for mut command in [way.drain().await, way.forwarder().await] {
            if saying == no_queue {
                command.env("QUEUE_NAME", "no-such-queue");
            }
            command.env(name, value);
            ends_with(command, 78, saying).await;
        }
    }
}

#[tokio::test]
async fn without_the_right_the_database_refuses() {
    let way = Way::new("without_right").await;
    let mut command = way.drain().await;
    way.database
        .batch_execute("DROP ROLE IF EXISTS nobody_special; CREATE ROLE nobody_special LOGIN")
        .await
        .unwrap();
    command.env("DATABASE_URL", cluster().await.url("nobody_special", way.name));
    ends_with(command, 78, "permission denied for schema pgmask").await;
}

#[tokio::test]
async fn without_a_database_or_a_queue_a_drain_ends_with_69() {
    let way = Way::new("without_either").await;
    let mut command = way.drain().await;
    let refused = RefusedPort::new().unwrap();
    let nowhere = refused.number();
    command.env("DATABASE_URL", format!("postgresql://u:secret-word@127.0.0.1:{nowhere}/d"));
    let ended = ends_with(command, 69, "the database can't be reached").await;
    assert!(!ended.log.contains("secret-word"), "{}", ended.log);

    let mut command = way.drain().await;
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{nowhere}"));
    ends_with(command, 69, "the queue can't be reached").await;
}

#[tokio::test]
async fn a_queue_or_a_database_that_is_not_there_ends_with_78() {
    let way = Way::new("neither_there").await;
    let mut command = way.drain().await;
    command.env("QUEUE_NAME", "no-such-queue");
    ends_with(command, 78, "Check the queue's name").await;
    let mut command = way.drain().await;
    command.env("DATABASE_URL", cluster().await.url("pgmask_forwarder", "no_such_database"));
    ends_with(command, 78, "no_such_database").await;
    let mut command = way.drain().await;
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    ends_with(command, 78, "credentials").await;
    let mut command = way.drain().await;
    command.env("DATABASE_URL", "postgresql://u:secret-word@:::/");
    let ended =
        ends_with(command, 78, "the database's port (PGPORT, or in the URL) is no number from 1 to 65535")
            .await;
    assert!(!ended.log.contains("secret-word"), "{}", ended.log);
    let mut command = way.drain().await;
    command.env("DATABASE_URL", "postgres:u:secret-word@host");
    let ended = ends_with(command, 78, "the database URL can't be read").await;
    assert!(!ended.log.contains("secret-word"), "{}", ended.log);
}

/// The SDK panics over these. They ended the forwarder with 101, and a text of the SDK's insides.
#[tokio::test]
async fn settings_that_the_sdk_can_not_use_are_named() {
    let way = Way::new("sdk_settings").await;
    for (name, value) in
        [("AWS_MAX_ATTEMPTS", "0"), ("AWS_MAX_ATTEMPTS", "secret-word"), ("AWS_RETRY_MODE", "secret-word")]
    {
        let mut command = way.drain().await;
        command.env(name, value);
        let ended = ends_with(command, 78, &format!("{name} has a value that the AWS SDK can't use")).await;
        assert!(!ended.log.contains("secret-word") && !ended.log.contains("panicked"), "{}", ended.log);
    }
    let profile = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(profile.path(), "[default]\nmax_attempts = 0\n").unwrap();
    let mut command = way.drain().await;
    command.env("AWS_CONFIG_FILE", profile.path());
    ends_with(command, 78, "the AWS profile has a setting that the AWS SDK can't use").await;
    let mut command = way.drain().await;
    command.env("AWS_CA_BUNDLE", "/nowhere");
    ends_with(command, 0, "AWS_CA_BUNDLE is not read").await;
}

/// What the role that inserts lacks was shown as a right that the forwarder's own role lacks.
#[tokio::test]
async fn what_the_writer_lacks_is_of_the_table() {
    let way = Way::new("writer_lacks_of_table").await;
    way.database.batch_execute("REVOKE INSERT ON user_logins FROM pgmask_writer").await.unwrap();
    let saying = "it needs INSERT ON TABLE public.user_logins (SQLSTATE 42501). GRANT that TO pgmask_writer.";
    let ended = ends_with(way.drain().await, 78, saying).await;
    assert!(!ended.log.contains("pgmask_ingester"), "{}", ended.log);
    let mut command = way.forwarder().await;
    command.arg("check");
    let checked = forwarder::run(command).await.unwrap();
    assert_eq!(checked.code, Some(78));
    let table = checked.printed.lines().find(|line| line.starts_with("✗ table")).unwrap();
    assert!(table.contains(saying), "{}", checked.printed);
    assert!(checked.printed.contains("✓ role"), "{}", checked.printed);
}

/// `check` found nothing, and each login went to the quarantine.
#[tokio::test]
async fn a_column_that_no_login_fills_is_named() {
    let way = Way::new("column_unfilled").await;
    way.database.batch_execute("ALTER TABLE user_logins ADD tenant text NOT NULL").await.unwrap();
    way.queue.send(&[r#"{"user_id":"u"}"#.to_owned()]).await.unwrap();
    let saying = "logins have no value for \"tenant\" of table \"public.user_logins\"";
    let mut command = way.forwarder().await;
    command.arg("check");
    let checked = forwarder::run(command).await.unwrap();
    assert_eq!(checked.code, Some(78));
    let table = checked.printed.lines().find(|line| line.starts_with("✗ table")).unwrap();
    assert!(table.contains(saying) && table.contains("SET DEFAULT"), "{}", checked.printed);
    ends_with(way.drain().await, 78, "logins have no value for").await;
    assert_eq!(way.queue.depth().await.unwrap(), [1, 0, 0]);
    assert_eq!(way.count("SELECT count(*) FROM pgmask.quarantine").await, 0);
}

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    let url = cluster().await.url("pgmask_forwarder", "postgres");
    let mut command = forwarder::command(localstack().await, "x", &url).unwrap();
    command.arg("--receivers=0");
    ends_with(command, 2, "--receivers").await;
    // pg_mask refuses larger batches, which were then tried again for ever.
    for (flag, expected) in
        [("--batch-messages=100001", "1 to 100000"), ("--batch-bytes=65MiB", "1 B to 64 MiB")]
    {
        let mut command = forwarder::command(localstack().await, "x", &url).unwrap();
        command.arg(flag);
        ends_with(command, 2, expected).await;
    }
    let mut command = forwarder::command(localstack().await, "x", &url).unwrap();
    command.env("QUEUE_NAME", "");
    ends_with(command, 2, "--queue-url").await;
    // A flag counts more than a variable.
    let mut command = forwarder::command(localstack().await, "x", &url).unwrap();
    command.args(["--drain", "--queue-url=http://127.0.0.1/000000000000/no-such-queue"]);
    ends_with(command, 78, "The specified queue does not exist").await;
}

#[tokio::test]
async fn a_variable_counts_unless_it_is_set_to_nothing() {
    let way = Way::new("empty_variables").await;
    let mut command = way.drain().await;
    for name in
        ["FORWARDER_METRICS_LISTEN", "FORWARDER_RECEIVERS", "FORWARDER_BATCH_BYTES", "FORWARDER_LOG_FORMAT"]
    {
        command.env(name, "");
    }
    assert_eq!(forwarder::run(command).await.unwrap().code, Some(0));
    let mut command = way.drain().await;
    command.arg("--batch-linger=500000000000years");
    assert_eq!(forwarder::run(command).await.unwrap().code, Some(2));
    // What is on or off is so by its variable, too.
    for (value, code) in [("true", 0), ("perhaps", 2)] {
        let mut command = way.forwarder().await;
        command.env("FORWARDER_DRAIN", value);
        let ended = forwarder::run(command).await.unwrap();
        assert_eq!(ended.code, Some(code), "{}", ended.log);
        assert!(!ended.log.contains("perhaps"), "{}", ended.log);
    }
}

/// A drain that did everything must not look crashed because nobody reads what it says.
#[tokio::test]
async fn a_summary_that_nobody_takes_changes_nothing() {
    let way = Way::new("full_disk").await;
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = way.drain().await;
    command.stdout(full).stderr(std::process::Stdio::null());
    let status = tokio::process::Command::from(command).status().await.unwrap();
    assert_eq!(status.code(), Some(0));
}

/// "The queue can't be reached: dns error" did not say who was asked, nor did "the database refuses".
#[tokio::test]
async fn what_was_asked_is_named() {
    let way = Way::new("named").await;
    let asked = async |name: &str, value: &str| {
        let mut command = way.drain().await;
        command.env(name, value);
        command
    };
    let command = asked("AWS_ENDPOINT_URL", "http://no-such-host.invalid:4566").await;
    let ended = ends_with(command, 69, "GetQueueUrl at http://no-such-host.invalid:4566").await;
    assert!(ended.log.contains("failed to lookup address"), "{}", ended.log);
    let mut command = asked("AWS_PROFILE", "no-such-profile").await;
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let ended = ends_with(command, 78, "AWS_PROFILE names the profile no-such-profile").await;
    assert_eq!(ended.log.lines().count(), 1, "{}", ended.log);
    // The URL is of another server than the one that is asked.
    let mut command = way.drain().await;
    let url = format!("http://queues.example.com/000000000000/{}", way.name);
    command.env_remove("QUEUE_NAME").env("QUEUE_URL", url);
    ends_with(command, 0, "the queue's URL names http://queues.example.com").await;

    let at = format!("the database at 127.0.0.1:{}", cluster().await.port());
    way.database.batch_execute("REVOKE USAGE ON SCHEMA pgmask FROM pgmask_ingester").await.unwrap();
    ends_with(way.drain().await, 78, &format!("{at} refuses: permission denied for schema pgmask")).await;
    way.database.batch_execute("DROP EXTENSION pg_mask CASCADE").await.unwrap();
    ends_with(way.drain().await, 78, &format!("{at} has no extension pg_mask")).await;
    let mut command = way.drain().await;
    command.env("DATABASE_URL", cluster().await.url("pgmask_forwarder", "no_such_database"));
    ends_with(command, 78, &format!("{at} refuses: database ")).await;
}

/// `check` said that all is well, the service started and was ready, and no batch ever fitted.
#[tokio::test]
async fn a_table_that_the_insert_does_not_fit_is_found_at_the_start_and_by_check() {
    let way = Way::new("unfit_table").await;
    way.queue.send(&[r#"{"user_id":"u"}"#.to_owned()]).await.unwrap();
    for (change, column) in [
        (
            "DROP SCHEMA logins CASCADE; CREATE TYPE device AS ENUM ('a'); ALTER TABLE user_logins ALTER device_type TYPE device USING NULL",
            "device_type",
        ),
        (
            "ALTER TABLE user_logins DROP device_type, ADD device_type varchar(32) GENERATED ALWAYS AS ('x') STORED",
            "device_type",
        ),
    ] {
        way.database.batch_execute(change).await.unwrap();
        ends_with(way.drain().await, 78, column).await;
        let mut command = way.forwarder().await;
        command.arg("check");
        let ended = ends_with(command, 78, "").await;
        let line = ended.printed.lines().find(|line| line.starts_with("✗ table")).unwrap_or_default();
        assert!(line.contains(column), "{}", ended.printed);
    }
    assert_eq!(way.queue.depth().await.unwrap(), [1, 0, 0]);
}

/// What is too large or too complex for the server does not pass by itself: it was tried again for ever.
#[tokio::test]
async fn a_batch_that_is_too_much_for_the_server_ends_a_drain_with_78() {
    let way = Way::new("too_much").await;
    way.queue.send(&[r#"{"user_id":"u"}"#.to_owned()]).await.unwrap();
    way.database
        .batch_execute(
            "CREATE FUNCTION too_complex() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'too complex' USING ERRCODE = '54001'; END $$;
             CREATE TRIGGER too_complex BEFORE INSERT ON user_logins
             FOR EACH ROW EXECUTE FUNCTION too_complex()",
        )
        .await
        .unwrap();
    ends_with(way.drain().await, 78, "Lower --batch-messages or --batch-bytes").await;
    // It is in the queue as before.
    assert_eq!(way.queue.depth().await.unwrap(), [1, 0, 0]);
}
