//! A database slower than the visibility time-out: what is held is renewed, and comes to nobody else.

use crate::common::{Way, counts, localstack, logins, slow_down};
use testbed::forwarder;
use testbed::proxy::{Fault, Proxy};

#[tokio::test]
async fn what_is_held_stays_hidden() {
    let way = Way::new("renewed").await;
    slow_down(&way.database, 5.0).await;
    way.queue.send(&logins(0..25)).await.unwrap();
    let mut command = way.drain().await;
    command.arg("--visibility-timeout=2s");
    let ended = forwarder::run(command).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(counts(&ended.summary), [25, 25, 0, 0, 25]);
    way.holds_each_once(25).await;
}

#[tokio::test]
async fn what_can_not_be_renewed_comes_again_and_is_a_duplicate() {
    let way = Way::new("not_renewed").await;
    slow_down(&way.database, 3.0).await;
    way.queue.send(&logins(0..25)).await.unwrap();
    let proxy = Proxy::before(localstack().await.port()).await.unwrap();
    proxy.set(Fault::answer("ChangeMessageVisibilityBatch", "500 Internal Server Error", "{}"));
    let mut command = way.drain().await;
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", proxy.port()));
    command.arg("--visibility-timeout=1s");
    let ended = forwarder::run(command).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let [received, inserted, duplicate, quarantined, _] = counts(&ended.summary);
    assert!(received > 25, "{}", ended.summary);
    assert_eq!([inserted, quarantined], [25, 0]);
    assert_eq!(received, inserted + duplicate);
    way.holds_each_once(25).await;
}
