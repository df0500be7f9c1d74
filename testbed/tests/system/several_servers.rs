//! Of several servers the primary is the one: a standby, or a primary that has become one, takes no
//! messages.

use crate::common::{Way, cluster, counts};
use testbed::forwarder;
use testbed::guardian::free_port;

#[tokio::test]
async fn the_one_that_takes_writes_is_found() {
    let way = Way::new("several_servers").await;
    way.queue.send(&[r#"{"user_id":"u"}"#.to_owned()]).await.unwrap();
    let standby = cluster().await.standby().await.unwrap();
    let (gone, primary) = (free_port().unwrap(), cluster().await.port());
    let to = |servers: &[u16]| {
        let servers: Vec<String> = servers.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("postgresql://pgmask_forwarder@{}/{}", servers.join(","), way.name)
    };
    let run = async |url: String| {
        let mut drain = way.drain().await;
        drain.env("DATABASE_URL", url);
        forwarder::run(drain).await.unwrap()
    };

    let ended = run(to(&[standby.port()])).await;
    assert_eq!(ended.code, Some(69), "{}", ended.log);
    assert!(ended.log.contains("is read-only: a standby"), "{}", ended.log);
    assert_eq!(way.queue.depth().await.unwrap(), [1, 0, 0]);

    let ended = run(to(&[gone, standby.port(), primary])).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(counts(&ended.summary), [1, 1, 0, 0, 1], "{}", ended.log);

    // Who is refused by one does not go on to the next.
    let ended = run(to(&[primary, primary]).replace("pgmask_forwarder", "no_such_role")).await;
    assert_eq!(ended.code, Some(78), "{}", ended.log);
    assert!(ended.log.contains("Check the role's name"), "{}", ended.log);
}
