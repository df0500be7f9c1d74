//! `forwarder check` tells what is good and what is not, with the cure, and leaves no trace.

use crate::common::{Way, cluster, count, localstack};
use aws_sdk_sqs::types::QueueAttributeName;
use std::process::Command;
use testbed::cluster::Cluster;
use testbed::forbid::Forbid;
use testbed::forwarder::{self, Ended};
use testbed::guardian::{RefusedPort, wait_until};
use testbed::queue::Queue;

const ALL: [&str; 14] = [
    "credentials",
    "queue",
    "dead letters",
    "visibility",
    "delete",
    "release",
    "database",
    "connections",
    "extension",
    "role",
    "keys",
    "table",
    "log",
    "standbys",
];

/// A set-up that is good, and what breaks it.
struct Checked(Way);

impl Checked {
    async fn new(name: &'static str) -> Self {
        let way = Way::new(name).await;
        Queue::create(localstack().await, &format!("{name}-dead")).await.unwrap();
        let checked = Self(way);
        checked.redrive(5).await;
        checked
    }

    async fn redrive(&self, receives: u32) {
        let policy = format!(
            r#"{{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:{}-dead","maxReceiveCount":{receives}}}"#,
            self.0.name
        );
        self.set(QueueAttributeName::RedrivePolicy, &policy).await;
    }

    async fn set(&self, attribute: QueueAttributeName, value: &str) {
        let call = self.0.queue.client.set_queue_attributes().queue_url(&self.0.queue.url);
        call.attributes(attribute, value).send().await.unwrap();
    }

    async fn sql(&self, sql: &str) {
        self.0.database.batch_execute(sql).await.unwrap();
    }

    async fn command(&self) -> Command {
        let url = cluster().await.url("pgmask_forwarder", self.0.name);
        let mut command = forwarder::command(localstack().await, self.0.name, &url).unwrap();
        command.arg("check");
        command
    }

    /// Checks, with something changed.
    async fn with(&self, change: impl FnOnce(&mut Command)) -> Ended {
        let mut command = self.command().await;
        command.arg("--output=json");
        change(&mut command);
        let ended = forwarder::run(command).await.unwrap();
        assert_eq!(ended.summary["exit_code"].as_i64().map(|code| code as i32), ended.code, "{}", ended.log);
        ended
    }

    async fn url(&self, role: &str) -> String {
        cluster().await.url(role, self.0.name)
    }
}

fn result<'a>(ended: &'a Ended, check: &str) -> (&'a str, &'a str) {
    let checks = ended.summary["checks"].as_array().unwrap_or_else(|| panic!("{}", ended.log));
    let mut found = checks.iter().filter(|finding| finding["check"] == check);
    let finding = found.next().unwrap_or_else(|| panic!("no {check} in {}", ended.printed));
    assert!(found.next().is_none(), "{check} twice in {}", ended.printed);
    (finding["result"].as_str().unwrap(), finding["text"].as_str().unwrap())
}

/// One line is as it should not be, with a cure; those that don't hang on it are good.
#[track_caller]
fn says(ended: &Ended, code: i32, check: &str, expected: &str, cure: &str) {
    assert_eq!(ended.code, Some(code), "{}", ended.printed);
    let (found, text) = result(ended, check);
    assert!(
        found == expected && text.contains(cure),
        "expected {check} {expected}, {cure:?}:\n{}",
        ended.printed
    );
    for other in ALL.iter().chain(&["retention"]).filter(|other| **other != check) {
        let (found, text) = result(ended, other);
        let in_order = found == "passed" || (expected == "failed" && found == "skipped");
        assert!(in_order, "{other} is {found} ({text}):\n{}", ended.printed);
    }
}

#[tokio::test]
async fn a_good_set_up_is_all_good_and_stays_as_it_was() {
    let checked = Checked::new("check_good").await;
    let way = &checked.0;
    way.queue.send(&[r#"{"user_id":"u"}"#.to_owned()]).await.unwrap();

    let ended = checked.with(|_| ()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.printed);
    for check in ALL.iter().chain(&["retention"]) {
        assert_eq!(result(&ended, check).0, "passed", "{}", ended.printed);
    }
    let ended = forwarder::run(checked.command().await).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.printed);
    let lines: Vec<&str> = ended.printed.lines().collect();
    assert_eq!(lines.len(), ALL.len() + 1);
    for (line, check) in lines.iter().zip(ALL.iter().chain(&["retention"])) {
        assert!(line.starts_with(&format!("✓ {check:12}  ")), "{line}");
    }

    assert_eq!(way.queue.depth().await.unwrap(), [1, 0, 0]);
    let receive = way.queue.client.receive_message().queue_url(&way.queue.url);
    let received = receive.message_system_attribute_names("All".into()).send().await.unwrap();
    let message = received.messages.unwrap().pop().unwrap();
    assert_eq!(message.attributes.unwrap()[&"ApproximateReceiveCount".into()], "1");
    for table in ["user_logins", "pgmask.ledger", "pgmask.quarantine"] {
        assert_eq!(way.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_queue_is_told_with_its_cure() {
    let checked = Checked::new("check_queue").await;
    let refused = RefusedPort::new().unwrap();
    let nowhere = format!("http://127.0.0.1:{}", refused.number());

    let ended = checked
        .with(|c| {
            c.env_remove("AWS_SECRET_ACCESS_KEY");
        })
        .await;
    says(&ended, 78, "credentials", "failed", "Check the AWS credentials");
    let ended = checked
        .with(|c| {
            c.env("QUEUE_NAME", "no-such-queue");
        })
        .await;
    says(&ended, 78, "queue", "failed", "Check the queue's name");
    let ended = checked
        .with(|c| {
            c.env("AWS_ENDPOINT_URL", nowhere);
        })
        .await;
    says(&ended, 69, "queue", "failed", "can't be reached");
    let ended = checked
        .with(|c| {
            c.arg("--visibility-timeout=1s");
        })
        .await;
    says(&ended, 0, "visibility", "warning", "Raise --visibility-timeout");
    for (call, check) in [("DeleteMessageBatch", "delete"), ("ChangeMessageVisibilityBatch", "release")] {
        let forbid = Forbid::call(call, &localstack().await.endpoint()).await.unwrap();
        let ended = checked
            .with(|c| {
                c.env("AWS_ENDPOINT_URL", forbid.endpoint());
            })
            .await;
        says(&ended, 78, check, "failed", "Allow sqs:GetQueueUrl");
    }

    checked.redrive(1).await;
    says(&checked.with(|_| ()).await, 0, "dead letters", "warning", "Raise maxReceiveCount");
    checked.set(QueueAttributeName::RedrivePolicy, "").await;
    says(&checked.with(|_| ()).await, 0, "dead letters", "warning", "Give the queue a RedrivePolicy");
    checked.redrive(5).await;
    checked.sql("ALTER DATABASE check_queue SET pgmask.ledger_days = 3").await;
    says(&checked.with(|_| ()).await, 0, "retention", "warning", "Set pgmask.ledger_days to 5");
}

#[tokio::test]
async fn what_is_wrong_with_the_database_is_told_with_its_cure() {
    let checked = Checked::new("check_database").await;
    let refused = RefusedPort::new().unwrap();
    let nowhere = format!("postgresql://pgmask_forwarder@127.0.0.1:{}/x", refused.number());
    checked
        .sql(
            "DROP ROLE IF EXISTS check_logged, check_nobody, check_reader;
         CREATE ROLE check_logged LOGIN IN ROLE pgmask_ingester;
         CREATE ROLE check_nobody LOGIN; CREATE ROLE check_reader LOGIN IN ROLE pgmask_ingester;
         GRANT SELECT ON user_logins TO check_reader;",
        )
        .await;
    for role in ["check_nobody", "check_reader"] {
        checked.sql(&format!(
            "ALTER ROLE {role} SET log_parameter_max_length = 0; ALTER ROLE {role} SET log_parameter_max_length_on_error = 0;
             ALTER ROLE {role} SET log_error_verbosity = terse; ALTER ROLE {role} SET plan_cache_mode = force_generic_plan;"
        )).await;
    }
    let as_role = async |role| {
        let url = checked.url(role).await;
        checked
            .with(|c| {
                c.env("DATABASE_URL", url);
            })
            .await
    };

    let ended = checked
        .with(|c| {
            c.env("DATABASE_URL", nowhere);
        })
        .await;
    says(&ended, 69, "database", "failed", "can't be reached");
    let elsewhere = cluster().await.url("pgmask_forwarder", "no_such_database");
    let ended = checked
        .with(|c| {
            c.env("DATABASE_URL", elsewhere);
        })
        .await;
    says(&ended, 78, "database", "failed", "Check the database's name");
    says(&as_role("check_nobody").await, 78, "role", "failed", "GRANT pgmask_ingester");
    says(&as_role("check_reader").await, 0, "role", "warning", "user_logins");
    says(
        &as_role("check_logged").await,
        0,
        "log",
        "warning",
        "ALTER ROLE check_logged SET log_parameter_max_length = 0;",
    );
    checked
        .sql("ALTER ROLE check_reader CONNECTION LIMIT 1; REVOKE SELECT ON user_logins FROM check_reader")
        .await;
    says(&as_role("check_reader").await, 0, "connections", "warning", "1 of 2 can be open at once");
    let ended = as_role("postgres").await;
    assert_eq!(result(&ended, "role").0, "warning", "{}", ended.printed);
    assert!(result(&ended, "role").1.contains("superuser"), "{}", ended.printed);

    checked.sql("UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'pg_mask'").await;
    says(&checked.with(|_| ()).await, 0, "extension", "warning", "ALTER EXTENSION pg_mask UPDATE");
    checked.sql("UPDATE pg_extension SET extversion = '0.1.0' WHERE extname = 'pg_mask'").await;
    checked.sql("DROP ROLE IF EXISTS check_owner; CREATE ROLE check_owner").await;
    checked.sql("UPDATE pg_extension SET extowner = 'check_owner'::regrole WHERE extname = 'pg_mask'").await;
    says(&checked.with(|_| ()).await, 0, "extension", "warning", "it belongs to role check_owner");
    checked.sql("UPDATE pg_extension SET extowner = 'postgres'::regrole WHERE extname = 'pg_mask'").await;
    checked.sql("DROP ROLE check_owner").await;
    checked.sql("UPDATE pgmask.key_check SET check_value = reverse(check_value)").await;
    says(&checked.with(|_| ()).await, 78, "keys", "failed", "key_status()");
    checked.sql("UPDATE pgmask.key_check SET check_value = reverse(check_value)").await;
    checked.sql("ALTER TABLE user_logins RENAME COLUMN locale TO language").await;
    says(&checked.with(|_| ()).await, 78, "table", "failed", "sql/01_user_logins.sql");
    checked.sql("ALTER TABLE user_logins RENAME COLUMN language TO locale").await;
    says(&checked.with(|_| ()).await, 0, "log", "passed", "");
    checked.sql("ALTER FUNCTION pgmask.ingest_login_batch RENAME TO of_another_version").await;
    says(&checked.with(|_| ()).await, 78, "extension", "failed", "ALTER EXTENSION pg_mask UPDATE");
    checked.sql("DROP EXTENSION pg_mask CASCADE").await;
    says(&checked.with(|_| ()).await, 78, "extension", "failed", "CREATE EXTENSION pg_mask");
}

/// The check said "and nothing else" of roles whose password is worth the server, the quarantine or the vault.
#[tokio::test]
async fn what_else_the_role_may_do_is_named() {
    let checked = Checked::new("check_more_rights").await;
    let major = cluster().await.major();
    checked
        .sql(
            "DROP ROLE IF EXISTS check_more, check_group, check_tables;
             CREATE ROLE check_more LOGIN IN ROLE pgmask_ingester;
             CREATE ROLE check_group NOINHERIT IN ROLE pg_execute_server_program;
             CREATE ROLE check_tables; GRANT DELETE ON user_logins TO check_tables;
             ALTER ROLE check_more SET log_parameter_max_length = 0; ALTER ROLE check_more SET log_parameter_max_length_on_error = 0;
             ALTER ROLE check_more SET log_error_verbosity = terse; ALTER ROLE check_more SET plan_cache_mode = force_generic_plan;",
        )
        .await;
    if major >= 16 {
        checked.sql("ALTER ROLE check_more SET auto_explain.log_parameter_max_length = 0").await;
    }
    let url = checked.url("check_more").await;
    let check = async || {
        checked
            .with(|c| {
                c.env("DATABASE_URL", &url);
            })
            .await
    };
    let member = |of: &str, named| {
        (
            format!("GRANT {of} TO check_more"),
            format!("REVOKE {of} FROM check_more"),
            format!("is a member of {named}"),
        )
    };
    let attribute = |name: &str| {
        (
            format!("ALTER ROLE check_more {name}"),
            format!("ALTER ROLE check_more NO{name}"),
            format!("has {name}"),
        )
    };
    let right = |what: &str, said: &str| {
        (format!("GRANT {what} TO check_more"), format!("REVOKE {what} FROM check_more"), said.to_owned())
    };
    let mut cases = vec![
        member("pg_read_server_files", "pg_read_server_files."),
        member("pg_signal_backend", "pg_signal_backend."),
        member("pgmask_recoverer", "pgmask_recoverer;"),
        member("pgmask_unlimited", "pgmask_unlimited."),
        member("pgmask_writer", "pgmask_writer;"),
        member("check_group", "pg_execute_server_program."),
        member("postgres", "postgres, a superuser."),
        attribute("CREATEROLE"),
        attribute("CREATEDB"),
        attribute("REPLICATION"),
        attribute("BYPASSRLS"),
        right("EXECUTE ON FUNCTION pgmask.unsealed(bigint)", "may call pgmask.unsealed(bigint)."),
        right("SELECT (user_id) ON user_logins", "has rights to the table user_logins."),
    ];
    if major >= 16 {
        let of = "pgmask_analyst TO check_more WITH INHERIT FALSE, SET TRUE";
        cases.push((
            format!("GRANT {of}"),
            "REVOKE pgmask_analyst FROM check_more".to_owned(),
            "is a member of pgmask_analyst;".to_owned(),
        ));
    }
    for (give, take, said) in cases {
        checked.sql(&give).await;
        let ended = check().await;
        says(&ended, 0, "role", "warning", &said);
        says(&ended, 0, "role", "warning", "Let the forwarder log in as pgmask_forwarder");
        checked.sql(&take).await;
    }
    // A right of a role that it does not inherit from, but may become.
    checked.sql("REVOKE pg_execute_server_program FROM check_group; GRANT check_tables TO check_group; GRANT check_group TO check_more").await;
    says(&check().await, 0, "role", "warning", "has rights to the table user_logins.");
    checked.sql("REVOKE check_group FROM check_more").await;
    // What only looks at the server's state.
    checked.sql("GRANT pg_read_all_stats, pg_read_all_settings TO check_more").await;
    says(&check().await, 0, "role", "passed", "and nothing else");
}

/// A message is deleted once the primary has committed it: with an asynchronous standby, a failover can lose it.
#[tokio::test]
async fn a_failover_that_could_lose_logins_is_warned_of() {
    let checked = Checked::new("check_standbys").await;
    let mut primary = Cluster::start(&["wal_level = logical", "max_wal_senders = 8"]).await.unwrap();
    let client = primary.database("check_standbys").await.unwrap();
    let url = primary.url("pgmask_forwarder", "check_standbys");
    let check = async || {
        checked
            .with(|c| {
                c.env("DATABASE_URL", &url);
            })
            .await
    };
    // Waits until the server is as that expression says.
    let until = async |expression: &str| {
        let sql = format!("SELECT count(*) WHERE {expression}");
        wait_until(expression, || async { count(&client, &sql).await == 1 }).await.unwrap();
    };
    let state = "(SELECT sync_state FROM pg_stat_replication WHERE application_name = 'walreceiver')";
    // A commit that waits for a standby in vain would hold up the test's own.
    let set = async |names: &str| {
        client.batch_execute("SET synchronous_commit = local").await.unwrap();
        let sql = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        client.batch_execute(&sql).await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        until(&format!("current_setting('synchronous_standby_names') = '{names}'")).await;
    };

    says(&check().await, 0, "standbys", "passed", "none is attached");
    set("walreceiver").await;
    says(&check().await, 0, "standbys", "warning", "no commit returns until one of these is there");
    set("").await;

    let mut standby = primary.standby().await.unwrap();
    until(&format!("{state} = 'async'")).await;
    // The role may not see which state the standby is in. What it is told to run is what mends it.
    let cure =
        r#"ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ("walreceiver")'; SELECT pg_reload_conf();"#;
    let ended = check().await;
    says(&ended, 0, "standbys", "warning", cure);
    says(&ended, 0, "standbys", "warning", "a standby is attached, and no commit waits for one");
    set(r#"ANY 1 ("walreceiver")"#).await;
    until(&format!("{state} = 'quorum'")).await;
    says(&check().await, 0, "standbys", "passed", "commits wait for ANY 1 (\"walreceiver\")");

    // A role that sees their state is told more.
    client.batch_execute("GRANT pg_read_all_stats TO pgmask_forwarder").await.unwrap();
    says(&check().await, 0, "standbys", "passed", "synchronous are walreceiver");
    set("another").await;
    until(&format!("{state} = 'async'")).await;
    says(&check().await, 0, "standbys", "warning", "a standby is attached, and none of those in");
    set("").await;
    says(&check().await, 0, "standbys", "warning", cure);

    // A subscriber is no standby.
    standby.stop("INT").unwrap();
    until("NOT EXISTS (SELECT FROM pg_stat_replication)").await;
    client
        .batch_execute(
            "REVOKE pg_read_all_stats FROM pgmask_forwarder; CREATE PUBLICATION logins FOR TABLE user_logins",
        )
        .await
        .unwrap();
    let subscriber = Cluster::start(&[]).await.unwrap();
    let reader = subscriber.connect("postgres").await.unwrap();
    let definition = "user_id text, device_type text, masked_ip text, masked_device_id text, locale text, app_version int, create_date date";
    reader.batch_execute(&format!("CREATE TABLE public.user_logins ({definition})")).await.unwrap();
    let url = primary.url("postgres", "check_standbys");
    reader
        .batch_execute(&format!("CREATE SUBSCRIPTION logins CONNECTION '{url}' PUBLICATION logins"))
        .await
        .unwrap();
    until("EXISTS (SELECT FROM pg_stat_replication WHERE application_name = 'logins')").await;
    says(&check().await, 0, "standbys", "passed", "none is attached");
}

/// It listed --drain, which it has no use for.
#[tokio::test]
async fn its_help_lists_what_it_uses() {
    let mut command = Command::new(forwarder::program().unwrap());
    command.args(["check", "--help"]);
    let ended = forwarder::run(command).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    for flag in ["--queue-url", "--database-url", "--writers", "--visibility-timeout", "PGPASSWORD_FILE"] {
        assert!(ended.printed.contains(flag), "{flag} in {}", ended.printed);
    }
    assert!(!ended.printed.contains("--drain"), "{}", ended.printed);
}

#[tokio::test]
async fn completions_and_the_manual_page_are_made_from_the_flags() {
    for (arguments, begins) in [(&["completions", "bash"][..], "_forwarder()"), (&["man"], ".ie")] {
        let mut command = Command::new(forwarder::program().unwrap());
        command.env_clear().args(arguments);
        let ended = forwarder::run(command).await.unwrap();
        assert_eq!((ended.code, ended.log.as_str()), (Some(0), ""));
        assert!(ended.printed.starts_with(begins), "{}", ended.printed);
        assert!(ended.printed.replace('\\', "").contains("--visibility-timeout"), "{}", ended.printed);
    }
}
