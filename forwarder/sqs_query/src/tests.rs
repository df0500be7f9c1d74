//! Whole exchanges: what the SDK sends and what it makes of the answers, with a network that holds the
//! answers ready.

use super::*;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::http::{HttpRequest, HttpResponse};
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::date_time::Format;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

const URL: &str = "http://queue.invalid/000000000000/q";
const AMZ_JSON: &str = "application/x-amz-json-1.0";
const XML: &str = "text/xml";
const HTML: &str = "text/html";

/// An answer: HTTP status, content type and body.
type Answer = (u16, &'static str, Vec<u8>);

/// Gives the next answer, the last one again and again.
#[derive(Debug)]
struct Network {
    answers: Mutex<VecDeque<Answer>>,
    /// What answers have as their `Date`.
    date: Mutex<Option<String>>,
    requests: Mutex<Vec<HttpRequest>>,
}

#[derive(Debug)]
struct Wire(Arc<Network>);

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.0.requests.lock().unwrap().push(request);
        let mut answers = self.0.answers.lock().unwrap();
        let (status, kind, body) =
            if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
        let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
        response.headers_mut().insert("content-type", kind);
        if let Some(date) = self.0.date.lock().unwrap().clone() {
            response.headers_mut().insert("date", date);
        }
        HttpConnectorFuture::ready(Ok(response))
    }
}

/// The SDK waits up to `backoff` before it tries again.
fn exchange(choice: Choice, answers: &[Answer], backoff: Duration) -> (Client, Arc<Network>) {
    let network = Arc::new(Network {
        answers: Mutex::new(answers.to_vec().into()),
        date: Mutex::default(),
        requests: Mutex::default(),
    });
    let wire = network.clone();
    let http = http_client_fn(move |_, _| SharedHttpConnector::new(Wire(wire.clone())));
    let settings = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url("http://127.0.0.1:4566")
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "id", "key", None, None, "test",
        )))
        .retry_config(RetryConfig::standard().with_initial_backoff(backoff).with_max_backoff(backoff))
        .http_client(http)
        .build();
    let config = client_config(&settings, &Arc::new(Negotiation::new(choice)));
    (Client::from_conf(config.build()), network)
}

const SHORT: Duration = Duration::from_millis(1);

/// What the SDK makes of a refusal.
#[derive(Debug)]
struct Refused {
    code: Option<String>,
    /// Everything that it says.
    text: String,
}

/// An error and what caused it, as it is shown.
fn causes(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(causes).unwrap_or_default();
    format!("{error}: {cause}")
}

/// Receives; the bodies or the error, and what was sent.
async fn receive(choice: Choice, answers: &[Answer]) -> (Result<Vec<String>, Refused>, Vec<HttpRequest>) {
    receive_with(choice, answers, SHORT).await
}

async fn receive_with(
    choice: Choice,
    answers: &[Answer],
    backoff: Duration,
) -> (Result<Vec<String>, Refused>, Vec<HttpRequest>) {
    let (client, network) = exchange(choice, answers, backoff);
    let received = client.receive_message().queue_url(URL).send().await;
    let received =
        received.map_err(|error| Refused { code: error.code().map(str::to_owned), text: causes(&error) });
    let bodies = received.map(|answer| {
        answer.messages.unwrap_or_default().into_iter().map(|m| m.body.unwrap_or_default()).collect()
    });
    (bodies, std::mem::take(&mut *network.requests.lock().unwrap()))
}

/// Which protocol each request was in.
fn spoken(requests: &[HttpRequest]) -> Vec<Protocol> {
    let is_json = |request: &HttpRequest| request.headers().get("x-amz-target").is_some();
    requests.iter().map(|request| if is_json(request) { Protocol::Json } else { Protocol::Query }).collect()
}

/// An answer to ReceiveMessage with one body, written by `write`.
fn message(write: impl Fn(&str) -> String, body: &str) -> Vec<u8> {
    format!(
        "<?xml version='1.0'?><ReceiveMessageResponse><ReceiveMessageResult><Message><MessageId>1</MessageId>\
         <ReceiptHandle>h</ReceiptHandle><Body>{}</Body></Message></ReceiveMessageResult></ReceiveMessageResponse>",
        write(body)
    )
    .into_bytes()
}

fn entities(body: &str) -> String {
    quick_xml::escape::escape(body).into_owned()
}

fn numbers(body: &str) -> String {
    body.chars().map(|character| format!("&#x{:X};", character as u32)).collect()
}

fn cdata(body: &str) -> String {
    format!("<![CDATA[{}]]>", body.replace("]]>", "]]]]><![CDATA[>"))
}

fn error(code: &str) -> Vec<u8> {
    format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>words</Message></Error></ErrorResponse>"
    )
    .into_bytes()
}

fn runs<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #[test]
    fn any_body_arrives_as_it_was_sent(body in "[^\u{0}]{0,40}|[ \r\n\t<>&;'\"\\]\\[#x0-9]{0,20}") {
        for write in [entities, numbers, cdata] {
            let (bodies, _) = runs(receive(Choice::Query, &[(200, XML, message(write, &body))]));
            prop_assert_eq!(bodies.unwrap(), [body.clone()]);
        }
    }

    #[test]
    fn no_answer_makes_it_panic(
        status in prop_oneof![Just(200u16), Just(400), Just(500)],
        body in prop_oneof![any::<Vec<u8>>(), "(</?[Ra]|<Receive|Response>|Message|&#?x?[0-9a-f]{0,6};|]]>|<!|\\PC){0,20}".prop_map(String::into_bytes)],
    ) {
        for choice in [Choice::Auto, Choice::Json, Choice::Query] {
            let _ = runs(receive(choice, &[(status, XML, body.clone())]));
        }
    }
}

/// What is beyond the limits is an error that the SDK does not ask for again, in both protocols.
#[tokio::test]
async fn answers_have_limits() {
    let many = "{},  ".repeat(limits::VALUES);
    let xml = message(|_| "<a/>".repeat(limits::VALUES), "");
    let deep = "[".repeat(limits::UNCOUNTED_BYTES + 1);
    for (choice, kind, body, expected) in [
        (Choice::Json, AMZ_JSON, format!("{{\"Messages\":[{many}{{}}]}}").into_bytes(), Error::TooManyValues),
        (Choice::Auto, AMZ_JSON, deep.into_bytes(), Error::TooDeep),
        (Choice::Query, XML, xml, Error::TooManyValues),
        (Choice::Json, AMZ_JSON, vec![b' '; limits::BYTES + 1], Error::TooLarge(limits::BYTES)),
        (Choice::Query, XML, vec![b' '; limits::BYTES + 1], Error::TooLarge(limits::BYTES)),
    ] {
        let (client, network) = exchange(choice, &[(200, kind, body)], SHORT);
        let (received, _) = crate::receiving(client.receive_message().queue_url(URL).send()).await;
        let error = received.unwrap_err();
        assert_eq!(Error::of(&error), Some(&expected), "{error:?}");
        assert_eq!(network.requests.lock().unwrap().len(), 1, "{expected:?}");
    }
    // A control character takes six times as much memory once it is JSON that the SDK can read: an answer of 60 MiB was a
    // GiB.
    let controls = "\u{1}".repeat(limits::BYTES / 6 + 1);
    let json = format!("{{\"Messages\":[{{\"Body\":\"{controls}\"}}]}}").into_bytes();
    let xml = message(str::to_owned, &controls);
    for (choice, kind, body) in [(Choice::Json, AMZ_JSON, json), (Choice::Query, XML, xml)] {
        let (client, _) = exchange(choice, &[(200, kind, body)], SHORT);
        let (received, _) = crate::receiving(client.receive_message().queue_url(URL).send()).await;
        let Err(error) = received else { panic!("{choice:?}: it is taken") }; // too long to be shown
        assert_eq!(Error::of(&error), Some(&Error::TooLarge(limits::BYTES)), "{error:?}");
    }
    // Sixty-four deletes may be under way, and none of their answers holds a message.
    let long = vec![b' '; limits::OTHER_BYTES + 1];
    let (client, _) = exchange(Choice::Json, &[(200, AMZ_JSON, long)], SHORT);
    let error = client.get_queue_attributes().queue_url(URL).send().await.unwrap_err();
    assert_eq!(Error::of(&error), Some(&Error::TooLarge(limits::OTHER_BYTES)), "{error:?}");
    // A page of a gateway may be anything; its status says enough.
    let page = (503, HTML, many.into_bytes());
    let answers = [page, (200, AMZ_JSON, br#"{"Messages":[{"Body":"b"}]}"#.to_vec())];
    let (bodies, _) = receive(Choice::Json, &answers).await;
    assert_eq!(bodies.unwrap(), ["b"]);
}

#[tokio::test]
async fn half_an_answer_is_no_answer() {
    let whole = message(entities, "<secret>");
    for length in 0..whole.len() {
        let answer = (200, XML, whole[..length].to_vec());
        let (bodies, requests) = receive(Choice::Query, std::slice::from_ref(&answer)).await;
        let error = bodies.unwrap_err();
        assert!(error.code.is_none() && !error.text.contains("secret"), "{error:?}");
        assert_eq!(requests.len(), 3); // the SDK's retries
    }
}

#[tokio::test]
async fn the_call_that_finds_out_is_not_lost_and_loses_no_time() {
    const LONG: Duration = Duration::from_secs(3600);
    let good = (200, XML, message(entities, "b"));
    // LocalStack 0.x; 1.x and 2.x.
    for first in
        [(500, HTML, b"{}".to_vec()), (500, XML, error("InternalError")), (400, XML, error("MissingAction"))]
    {
        let answers = [first, good.clone()];
        let received = receive_with(Choice::Auto, &answers, LONG);
        let (bodies, requests) =
            tokio::time::timeout(LONG / 60, received).await.expect("the SDK does not wait");
        assert_eq!(bodies.unwrap(), ["b"]);
        assert_eq!(spoken(&requests), [Protocol::Json, Protocol::Query]);
        let query = &requests[1];
        assert_eq!(query.uri(), "http://127.0.0.1:4566/000000000000/q");
        assert_eq!(query.headers().get("content-type"), Some("application/x-www-form-urlencoded"));
        let form = query.body().bytes().unwrap();
        assert_eq!(query.headers().get("content-length"), Some(form.len().to_string().as_str()));
        assert!(form.starts_with(b"Action=ReceiveMessage&Version=2012-11-05&"));
        assert_ne!(query.headers().get("authorization"), requests[0].headers().get("authorization"));
    }
}

#[tokio::test]
async fn an_outage_before_does_not_keep_a_client_from_finding_out() {
    for _ in 0..100 {
        let (bodies, _) = receive(Choice::Json, &[(503, HTML, Vec::new())]).await;
        bodies.unwrap_err();
    }
    let answers = [(500, HTML, b"{}".to_vec()), (200, XML, message(entities, "b"))];
    let (bodies, _) = receive(Choice::Auto, &answers).await;
    assert_eq!(bodies.unwrap(), ["b"]);
}

#[tokio::test]
async fn a_modern_server_is_asked_once() {
    let good = (200, AMZ_JSON, br#"{"Messages":[{"Body":"b"}]}"#.to_vec());
    for kind in [AMZ_JSON, "application/json", HTML] {
        let (bodies, requests) = receive(Choice::Auto, &[(200, kind, good.2.clone())]).await;
        assert_eq!((bodies.unwrap(), requests.len()), (vec!["b".to_owned()], 1));
    }
    // A bad moment: another protocol is tried, and JSON again.
    let bad = [(500, HTML, b"{}".to_vec()), (503, HTML, b"<html>".to_vec()), good.clone()];
    let (bodies, requests) = receive(Choice::Auto, &bad).await;
    assert_eq!(bodies.unwrap(), ["b"]);
    assert_eq!(spoken(&requests), [Protocol::Json, Protocol::Query, Protocol::Json]);
    // Gateways' pages tell nothing.
    let (bodies, requests) = receive(Choice::Auto, &[(503, HTML, b"<html>".to_vec()), good]).await;
    assert_eq!(bodies.unwrap(), ["b"]);
    assert_eq!(spoken(&requests), [Protocol::Json; 2]);
}

#[tokio::test]
async fn refusals_are_the_sdks_own_errors() {
    for code in
        ["AccessDenied", "SignatureDoesNotMatch", "Throttling", "InternalError", "A code\nfor no header"]
    {
        let (bodies, _) = receive(Choice::Query, &[(400, XML, error(code))]).await;
        let refused = bodies.unwrap_err();
        assert_eq!(refused.code.as_deref(), Some(code), "{refused:?}");
        assert!(refused.text.contains("words"), "{refused:?}");
    }
    let (client, _) =
        exchange(Choice::Query, &[(400, XML, error("AWS.SimpleQueueService.NonExistentQueue"))], SHORT);
    let refused = client.receive_message().queue_url(URL).send().await.unwrap_err();
    assert!(refused.into_service_error().is_queue_does_not_exist());
    let (client, _) = exchange(Choice::Query, &[(400, XML, error("ReceiptHandleIsInvalid"))], SHORT);
    let refused = client.delete_message().queue_url(URL).receipt_handle("h").send().await.unwrap_err();
    assert!(refused.into_service_error().is_receipt_handle_is_invalid());
}

#[tokio::test]
async fn pages_of_gateways_are_waited_out() {
    for status in [400, 502, 503] {
        let page = (status, HTML, b"<!doctype html><html><body>secret<br></body></html>".to_vec());
        let (bodies, _) = receive(Choice::Query, &[page]).await;
        let error = bodies.unwrap_err();
        assert!(error.code.is_none() && !error.text.contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn the_wrong_choice_is_named() {
    let baffled = (500, HTML, b"{}".to_vec());
    let unknown = (404, AMZ_JSON, br#"{"__type":"UnknownOperationException"}"#.to_vec());
    for (choice, answer) in [
        (Choice::Json, baffled),
        (Choice::Json, (400, XML, error("MissingAction"))),
        (Choice::Query, unknown),
    ] {
        let (bodies, _) = receive(choice, &[answer]).await;
        let error = bodies.unwrap_err();
        assert_eq!(error.code.as_deref(), Some(WRONG_PROTOCOL), "{error:?}");
    }
}

/// The SDK corrects its clock by the time that an answer gives: after one of the year 9999 the next request was a
/// panic, and after one of 2030 it was signed for 2030.
#[tokio::test]
async fn an_answer_of_another_year_is_no_reason_to_sign_for_it() {
    let answer = (200, AMZ_JSON, br#"{"Messages":[{"Body":"b"}]}"#.to_vec());
    let refusal = (403, AMZ_JSON, br#"{"__type":"AccessDenied"}"#.to_vec());
    let http = |time: SystemTime| DateTime::from(time).fmt(Format::HttpDate).unwrap();
    let hour = Duration::from_secs(3600);
    let signed_at = async |answer: &Answer, date: String| {
        let (client, network) = exchange(Choice::Json, std::slice::from_ref(answer), SHORT);
        *network.date.lock().unwrap() = Some(date);
        for _ in 0..2 {
            let _ = client.receive_message().queue_url(URL).send().await;
        }
        let requests = network.requests.lock().unwrap();
        let signed = requests.last().unwrap().headers().get("x-amz-date").unwrap();
        let [day, time] = [&signed[..8], &signed[9..15]];
        let digits = |text: &str, at: usize| text[at..at + 2].to_owned();
        let time = [0, 2, 4].map(|at| digits(time, at)).join(":");
        let text = format!("{}-{}-{}T{time}Z", &day[..4], digits(day, 4), digits(day, 6));
        SystemTime::try_from(DateTime::from_str(&text, Format::DateTime).unwrap()).unwrap()
    };
    let near = |time: SystemTime, wanted: SystemTime| {
        let apart = time.duration_since(wanted).unwrap_or_else(|error| error.duration());
        assert!(apart < Duration::from_secs(300), "{time:?} is not {wanted:?}");
    };
    for answer in [&answer, &refusal] {
        for date in [
            "Mon, 31 Dec 9999 23:59:59 GMT".to_owned(),
            "Fri, 31 Dec 9999 23:59:59 GMT".to_owned(),
            "Tue, 01 Jan 2080 00:00:00 GMT".to_owned(),
            "Thu, 01 Jan 1970 00:00:00 GMT".to_owned(),
            http(SystemTime::now() + 25 * hour),
            http(SystemTime::now() - 25 * hour),
            "no date".to_owned(),
        ] {
            near(signed_at(answer, date).await, SystemTime::now());
        }
        // This machine's clock is wrong.
        let hours = SystemTime::now() - 3 * hour;
        near(signed_at(answer, http(hours)).await, hours);
    }
}
