//! The queue is reached through the proxies that the standard variables name, as every AWS tool does it.

use crate::common::{Way, localstack, logins};
use testbed::forwarder;
use testbed::http_proxy::HttpProxy;

/// Only the proxy knows what this is.
const BEHIND: &str = "http://queue.behind.invalid:4566";

async fn proxy() -> HttpProxy {
    let endpoint = localstack().await.endpoint();
    let port = endpoint.rsplit(':').next().unwrap().parse().unwrap();
    HttpProxy::before(port).await.unwrap()
}

#[tokio::test]
async fn a_queue_behind_a_proxy_is_drained() {
    let way = Way::new("behind_a_proxy").await;
    way.queue.send(&logins(0..30)).await.unwrap();
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let proxy = proxy().await;
        let mut command = way.drain().await;
        command
            .args(["--log-level", "trace"])
            .env("AWS_ENDPOINT_URL", BEHIND)
            .env(variable, format!("http://carrier:hunter2@{}", proxy.address()));
        let ended = forwarder::run(command).await.unwrap();
        assert_eq!(ended.code, Some(0), "{variable}: {}", ended.log);
        let heads = proxy.heads();
        assert!(heads.iter().all(|head| head.starts_with("POST http://queue.behind.invalid")), "{heads:?}");
        // carrier:hunter2 in base64 (RFC 7617).
        let knows = |head: &String| head.contains("Y2FycmllcjpodW50ZXIy");
        assert!(!heads.is_empty() && heads.iter().all(knows), "{heads:?}");
        assert!(!ended.log.contains("hunter2") && !ended.log.contains("Y2Fycmll"), "{}", ended.log);
    }
    way.holds_each_once(30).await;
}

#[tokio::test]
async fn hosts_that_no_proxy_names_are_asked_directly() {
    let way = Way::new("no_proxy").await;
    let proxy = proxy().await;
    let mut command = way.drain().await;
    command.env("HTTP_PROXY", format!("http://{}", proxy.address())).env("NO_PROXY", "127.0.0.1,example.com");
    let ended = forwarder::run(command).await.unwrap();
    assert_eq!((ended.code, proxy.heads()), (Some(0), vec![]), "{}", ended.log);
}

#[tokio::test]
async fn tls_goes_through_a_tunnel() {
    let way = Way::new("tunnel").await;
    let proxy = proxy().await;
    let mut command = way.drain().await;
    // What is at its end has no certificate that anybody trusts; the way there is what counts here.
    command
        .env("AWS_ENDPOINT_URL", "https://queue.behind.invalid")
        .env("HTTPS_PROXY", format!("http://carrier:hunter2@{}", proxy.address()));
    let ended = forwarder::run(command).await.unwrap();
    assert_eq!(ended.code, Some(69), "{}", ended.log);
    assert!(!ended.log.contains("hunter2"), "{}", ended.log);
    let heads = proxy.heads();
    assert!(heads.iter().all(|head| head.starts_with("CONNECT queue.behind.invalid:443 ")), "{heads:?}");
    assert!(!heads.is_empty());
}
