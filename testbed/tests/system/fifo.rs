//! A FIFO queue's groups keep their order, into the database.

use crate::common::{Way, cluster, localstack};
use aws_sdk_sqs::types::SendMessageBatchRequestEntry as Entry;
use rustix::process::Signal;
use testbed::forwarder::{self, Running};
use testbed::guardian::wait_until;
use testbed::lost_answers::LostAnswers;
use testbed::proxy::Proxy;
use testbed::queue::Queue;

const GROUPS: usize = 5;
const EACH: usize = 60;

async fn fifo(name: &'static str) -> Way {
    let database = cluster().await.database(name).await.unwrap();
    // In which order rows came.
    let number = "ALTER TABLE user_logins ADD COLUMN place bigint GENERATED ALWAYS AS IDENTITY";
    database.batch_execute(number).await.unwrap();
    let client = localstack().await.client();
    let make = client.create_queue().queue_name(format!("{name}.fifo"));
    let made = make.attributes("FifoQueue".into(), "true").send().await.unwrap();
    let queue = Queue { client, url: made.queue_url.unwrap(), name: format!("{name}.fifo") };
    for n in 0..EACH {
        let entry = |group: usize| {
            let id = format!("{group}-{n:03}");
            let entry = Entry::builder().id(&id).message_group_id(group.to_string());
            entry
                .message_deduplication_id(&id)
                .message_body(format!(r#"{{"user_id":"{id}"}}"#))
                .build()
                .unwrap()
        };
        let send = queue.client.send_message_batch().queue_url(&queue.url);
        send.set_entries(Some((0..GROUPS).map(entry).collect())).send().await.unwrap();
    }
    Way { name, database, queue }
}

async fn is_in_order(way: &Way) {
    way.holds_each_once(GROUPS * EACH).await;
    // Committed one after the other, too: a transaction that began later has a higher number.
    let late = "SELECT count(*) FROM (
        SELECT user_id, lag(user_id) OVER (PARTITION BY split_part(user_id, '-', 1) ORDER BY place) AS before
        FROM user_logins) rows WHERE before > user_id";
    assert_eq!(way.count(late).await, 0);
}

#[tokio::test]
async fn order_is_kept_by_many_writers_and_forwarders() {
    let way = fifo("fifo").await;
    let url = cluster().await.url("pgmask_forwarder", way.name);
    let drain = |arguments: &[&str]| {
        let command = async { forwarder::command(localstack().await, &way.queue.name, &url).unwrap() };
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        async {
            let mut command = command.await;
            command.arg("--drain").args(arguments);
            forwarder::run(command).await.unwrap()
        }
    };
    let small = ["--receivers=8", "--writers=4", "--batch-messages=7", "--batch-linger=1ms"];
    let (one, other) = tokio::join!(drain(&small), drain(&["--batch-linger=10ms"]));
    assert_eq!((one.code, other.code), (Some(0), Some(0)), "{}\n{}", one.log, other.log);
    is_in_order(&way).await;
}

#[tokio::test]
async fn order_is_kept_through_cuts_and_releases() {
    let way = fifo("fifo_cuts").await;
    let proxy = Proxy::before(cluster().await.port()).await.unwrap();
    let url = format!("postgresql://pgmask_forwarder@127.0.0.1:{}/{}", proxy.port(), way.name);
    for _ in 1..=3 {
        let mut command = forwarder::command(localstack().await, &way.queue.name, &url).unwrap();
        command.args(["--writers=4", "--batch-messages=10", "--batch-linger=1ms"]);
        let running = Running::start(command).unwrap();
        // Only then does it listen for signals.
        let listens = || async { running.get("/healthz").await.contains("200 OK") };
        wait_until("it has started", listens).await.unwrap();
        let rows = || async { way.count("SELECT count(*) FROM user_logins").await };
        for _ in 0..3 {
            let before = rows().await;
            let more = || async { rows().await > before || before == (GROUPS * EACH) as i64 };
            wait_until("more are in", more).await.unwrap();
            proxy.cut();
        }
        running.signal(Signal::TERM).unwrap();
        assert_eq!(running.ended().await.unwrap().code, Some(0));
    }
    let running =
        Running::start(forwarder::command(localstack().await, &way.queue.name, &url).unwrap()).unwrap();
    let empty = || async { way.queue.depth().await.unwrap() == [0, 0, 0] };
    wait_until("all are deleted", empty).await.unwrap();
    drop(running);
    is_in_order(&way).await;
}

/// SQS locks a message group from the moment at which it gives messages of it. If the answer is lost, a request
/// with the same attempt id gets them once more; under another id the group would be locked until the visibility
/// timeout, an hour here.
#[tokio::test]
async fn a_lost_answer_locks_no_group() {
    let way = fifo("fifo_lost_answer").await;
    let network = LostAnswers::before(&localstack().await.endpoint()).await.unwrap();
    let url = cluster().await.url("pgmask_forwarder", way.name);
    let mut command = forwarder::command_at(&network.endpoint(), &way.queue.name, &url).unwrap();
    command.args(["--visibility-timeout=1h", "--receivers=2"]);
    let running = Running::start(command).unwrap();
    way.rows(GROUPS * EACH).await;
    let empty = || async { way.queue.depth().await.unwrap() == [0, 0, 0] };
    wait_until("all are deleted", empty).await.unwrap();
    let (lost, given_again) = network.lost();
    assert!(lost >= GROUPS * EACH / 10 && given_again == lost, "{lost} lost, {given_again} given again");
    running.signal(Signal::TERM).unwrap();
    assert_eq!(running.ended().await.unwrap().code, Some(0));
    is_in_order(&way).await;
}
