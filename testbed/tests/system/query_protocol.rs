//! Old emulators, which know SQS's Query protocol alone, are served like all others.

use crate::common::{Way, cluster, count, counts, ends_with};
use std::process::{Command, Stdio};
use testbed::forwarder::{self, Ended};
use testbed::guardian::wait_until;
use testbed::query_only::{Manners, QueryOnly};
use tokio_postgres::Client;

/// A server that knows no JSON, and a database.
struct OldWay {
    name: &'static str,
    server: QueryOnly,
    database: Client,
}

impl OldWay {
    async fn new(name: &'static str, manners: Manners) -> Self {
        let database = cluster().await.database(name).await.unwrap();
        let server = QueryOnly::start(name, manners).await.unwrap();
        Self { name, server, database }
    }

    async fn forwarder(&self) -> Command {
        let url = cluster().await.url("pgmask_forwarder", self.name);
        forwarder::command_at(&self.server.endpoint(), self.name, &url).unwrap()
    }

    async fn drain(&self) -> Command {
        let mut command = self.forwarder().await;
        command.args(["--drain", "--receivers=2"]);
        command
    }

    /// Sends bodies that XML and forms could spoil, drains, and expects them all in the table.
    async fn carries_all(&self, command: Command, messages: usize) -> Ended {
        let users: Vec<String> = (0..messages).map(user).collect();
        self.server.send(&users.iter().map(|user| body(user)).collect::<Vec<_>>());
        let ended = forwarder::run(command).await.unwrap();
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        let n = messages as u64;
        assert_eq!(counts(&ended.summary), [n, n, 0, 0, n], "{}", ended.log);
        assert_eq!(self.server.depth(), [0, 0]);
        let rows = self.database.query("SELECT user_id FROM user_logins ORDER BY 1", &[]).await.unwrap();
        let mut found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let mut users = users;
        users.sort();
        found.sort();
        assert_eq!(found, users);
        ended
    }
}

/// A name with what has a meaning in XML, in forms or in JSON.
fn user(number: usize) -> String {
    const PARTS: [&str; 8] =
        ["<&>\"'", "]]>", "&amp;&#65;", "\r\n\t", "é😀\u{2028}", "a+b%20=&c", "  space  ", "\\u0041\u{7f}"];
    format!("{number} {}", PARTS[number % PARTS.len()])
}

fn body(user: &str) -> String {
    serde_json::json!({ "user_id": user, "ip": "203.0.113.7", "device_id": "d" }).to_string()
}

#[tokio::test]
async fn auto_finds_out_on_the_first_call() {
    let way = OldWay::new("query_auto", Manners::default()).await;
    let ended = way.carries_all(way.drain().await, 57).await;
    let asked = way.server.asked();
    assert_eq!(asked[..3], ["json", "GetQueueUrl", "GetQueueAttributes"]);
    assert_eq!(asked.iter().filter(|asked| *asked == "json").count(), 1);
    assert!(!asked.contains(&"refused".to_owned()), "{asked:?}");
    assert_eq!(ended.log.matches("Query protocol").count(), 2, "{}", ended.log); // found out, connected
}

#[tokio::test]
async fn auto_finds_out_where_nothing_is_tried_twice() {
    let way = OldWay::new("query_once", Manners::default()).await;
    let mut command = way.drain().await;
    command.env("AWS_MAX_ATTEMPTS", "1");
    way.carries_all(command, 3).await;
}

#[tokio::test]
async fn query_asks_nothing_else() {
    let way = OldWay::new("query_fixed", Manners::default()).await;
    let mut command = way.drain().await;
    command.env("FORWARDER_SQS_PROTOCOL", "query");
    way.carries_all(command, 23).await;
    assert!(!way.server.asked().contains(&"json".to_owned()));
}

#[tokio::test]
async fn json_ends_with_what_to_do() {
    let way = OldWay::new("query_json", Manners::default()).await;
    way.server.send(&[body("u")]);
    let mut command = way.drain().await;
    command.arg("--sqs-protocol=json");
    ends_with(command, 78, "Set --sqs-protocol (FORWARDER_SQS_PROTOCOL) to auto").await;
    assert_eq!(way.server.depth(), [1, 0]);
}

#[tokio::test]
async fn a_queue_that_is_not_there_ends_with_78() {
    let way = OldWay::new("query_no_queue", Manners::default()).await;
    let mut command = way.drain().await;
    command.env("QUEUE_NAME", "no-such-queue");
    ends_with(command, 78, "Check the queue's name").await;
    let mut command = way.drain().await;
    command.env_remove("QUEUE_NAME").env("QUEUE_URL", "http://queue.invalid/000000000000/no-such-queue");
    ends_with(command, 78, "Check the queue's name").await;
    // Signed with another key.
    let mut command = way.drain().await;
    command.env("AWS_SECRET_ACCESS_KEY", "wrong");
    ends_with(command, 78, "Check the AWS credentials").await;
}

#[tokio::test]
async fn deletes_that_fail_in_part_are_tried_again() {
    let way = OldWay::new("query_deletes", Manners { failing_deletes: 17, ..Manners::default() }).await;
    way.carries_all(way.drain().await, 40).await;
}

#[tokio::test]
async fn a_server_that_is_baffled_now_and_then() {
    let way = OldWay::new("query_baffled", Manners { baffled_calls: 1, ..Manners::default() }).await;
    way.carries_all(way.drain().await, 12).await;
}

#[tokio::test]
async fn times_of_another_unit_or_none_at_all() {
    let seconds = Manners { seconds: true, ..Manners::default() };
    let none = Manners { no_attributes: true, ..Manners::default() };
    for (name, manners) in [("query_seconds", seconds), ("query_no_times", none)] {
        let way = OldWay::new(name, manners).await;
        way.carries_all(way.drain().await, 5).await;
        let today = "SELECT count(*) FROM user_logins
                     WHERE create_date - (now() AT TIME ZONE 'UTC')::date IN (0, -1)";
        assert_eq!(count(&way.database, today).await, 5);
    }
}

#[tokio::test]
async fn when_it_was_sent_and_how_often_received_reaches_the_database() {
    let way = OldWay::new("query_attributes", Manners::default()).await;
    way.server.send(&["no login".to_owned()]);
    let ended = forwarder::run(way.drain().await).await.unwrap();
    assert_eq!(counts(&ended.summary), [1, 0, 0, 1, 1], "{}", ended.log);
    let told = "SELECT count(*) FROM pgmask.quarantine
                WHERE receive_count = 1 AND sent_at BETWEEN now() - interval '10 minutes' AND now()";
    assert_eq!(count(&way.database, told).await, 1);
}

#[tokio::test]
async fn what_is_held_is_made_visible_again_and_comes_again() {
    let way = OldWay::new("query_release", Manners::default()).await;
    way.database
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'gone' USING ERRCODE = 'undefined_table'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await
        .unwrap();
    way.server.send(&vec![body("0"); 25]);
    let ended = ends_with(way.drain().await, 78, "42P01").await;
    assert_eq!(ended.summary["released"], ended.summary["received"], "{}", ended.log);
    assert_eq!(way.server.depth(), [25, 0]);

    way.database.batch_execute("DROP TRIGGER refuse ON user_logins").await.unwrap();
    let ended = forwarder::run(way.drain().await).await.unwrap();
    assert_eq!(counts(&ended.summary), [25, 25, 0, 0, 25], "{}", ended.log);
    assert_eq!(way.server.depth(), [0, 0]);
}

#[tokio::test]
async fn a_server_that_restarts_is_spoken_to_as_before() {
    let mut way = OldWay::new("query_restart", Manners::default()).await;
    let mut command = way.forwarder().await;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let rows = async |expected: i64| {
        let arrived = || async { count(&way.database, "SELECT count(*) FROM user_logins").await == expected };
        wait_until("rows arrive", arrived).await.unwrap();
    };
    way.server.send(&vec![body("0"); 15]);
    rows(15).await;
    way.server.stop().await;
    way.server.send(&vec![body("1"); 15]);
    way.server.resume().await.unwrap();
    rows(30).await;
    wait_until("all are deleted", || async { way.server.depth() == [0, 0] }).await.unwrap();
    let pid = rustix::process::Pid::from_raw(running.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = running.wait_with_output().await.unwrap();
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{log}");
    assert_eq!(way.server.asked().iter().filter(|asked| *asked == "json").count(), 1, "{log}");
}

#[tokio::test]
async fn a_server_that_knows_both_is_asked_in_json_unless_told_otherwise() {
    let way = Way::new("both_protocols").await;
    let bodies: Vec<String> = (0..32).map(|number| body(&user(number))).collect();
    for (protocol, said) in [("auto", "AWS JSON"), ("query", "SQS's Query protocol")] {
        way.queue.send(&bodies).await.unwrap();
        let mut command = way.drain().await;
        command.args(["--sqs-protocol", protocol]);
        let ended = forwarder::run(command).await.unwrap();
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert_eq!(counts(&ended.summary), [32, 32, 0, 0, 32], "{}", ended.log);
        assert!(ended.log.contains(said), "{}", ended.log);
        assert_eq!(way.queue.depth().await.unwrap(), [0, 0, 0]);
    }
    assert_eq!(way.count("SELECT count(DISTINCT user_id) FROM user_logins").await, 32);
}
