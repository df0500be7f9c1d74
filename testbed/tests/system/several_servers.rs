//! Of several servers the primary is the one: a standby, or a primary that has become one, takes no
//! messages.

use crate::common::{counts, localstack};
use testbed::cluster::Cluster;
use testbed::forwarder;
use testbed::guardian::RefusedPort;
use testbed::queue::Queue;

#[tokio::test]
async fn the_one_that_takes_writes_is_found() {
    const NAME: &str = "several_servers";
    let mut cluster = Cluster::start(&[]).await.unwrap();
    drop(cluster.database(NAME).await.unwrap());
    let queue = Queue::create(localstack().await, NAME).await.unwrap();
    queue.send(&[r#"{"user_id":"u"}"#.to_owned()]).await.unwrap();
    let standby = cluster.standby().await.unwrap();
    let refused = RefusedPort::new().unwrap();
    let (gone, primary) = (refused.number(), cluster.port());
    let to = |servers: &[u16]| {
        let servers: Vec<String> = servers.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("postgresql://pgmask_forwarder@{}/{NAME}", servers.join(","))
    };
    let run = async |url: String| {
        let mut drain = forwarder::command(localstack().await, NAME, &url).unwrap();
        drain.arg("--drain");
        forwarder::run(drain).await.unwrap()
    };

    let ended = run(to(&[standby.port()])).await;
    assert_eq!(ended.code, Some(69), "{}", ended.log);
    assert!(ended.log.contains("is read-only: a standby"), "{}", ended.log);
    assert_eq!(queue.depth().await.unwrap(), [1, 0, 0]);

    let ended = run(to(&[gone, standby.port(), primary])).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(counts(&ended.summary), [1, 1, 0, 0, 1], "{}", ended.log);

    // Who is refused by one does not go on to the next.
    let ended = run(to(&[primary, primary]).replace("pgmask_forwarder", "no_such_role")).await;
    assert_eq!(ended.code, Some(78), "{}", ended.log);
    assert!(ended.log.contains("Check the role's name"), "{}", ended.log);
}
