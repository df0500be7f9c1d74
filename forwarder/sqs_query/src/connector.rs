//! Between the SDK and the network: hears which protocol an answer is in, and turns one of the Query
//! protocol into AWS JSON before the SDK reads it.

use crate::answer::{self, Answer, Refusal};
use crate::body;
use crate::bounded::Bounded;
use crate::error::Error;
use crate::json;
use crate::limits;
use crate::negotiation::{Sign, Verdict};
use crate::receive::Receive;
use crate::request::FORM;
use crate::{Negotiation, Protocol, WRONG_PROTOCOL};
use aws_sdk_sqs::config::http::{HttpRequest, HttpResponse};
use aws_sdk_sqs::config::interceptors::InterceptorContext;
use aws_sdk_sqs::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_sqs::config::{
    ConfigBag, HttpClient, RuntimeComponents, RuntimeComponentsBuilder, SharedHttpClient,
};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::retries::classifiers::RetryClassifierPriority;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::date_time::Format;
use aws_smithy_types::retry::ErrorKind;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;

const JSON: &str = "application/x-amz-json-1.0";

/// Puts the protocol before an HTTP client.
pub(crate) fn wrap(inner: SharedHttpClient, negotiation: Arc<Negotiation>) -> SharedHttpClient {
    SharedHttpClient::new(Wrap {
        inner,
        shared: Arc::new(Shared { negotiation, turns: Arc::new(Semaphore::new(1)) }),
    })
}

/// An HTTP client whose connectors speak the protocol.
#[derive(Debug)]
struct Wrap {
    inner: SharedHttpClient,
    shared: Arc<Shared>,
}

/// What the calls of a client have in common.
#[derive(Debug)]
struct Shared {
    negotiation: Arc<Negotiation>,
    /// Of large answers that do not say their length.
    turns: Arc<Semaphore>,
}

impl HttpClient for Wrap {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Connector { inner, shared: self.shared.clone() })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.inner.validate_base_client_config(components, config)
    }

    fn validate_final_config(
        &self,
        components: &RuntimeComponents,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.inner.validate_final_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.inner.connector_metadata()
    }
}

#[derive(Debug)]
struct Connector {
    inner: SharedHttpConnector,
    shared: Arc<Shared>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let asked = match request.headers().get("content-type") {
            Some(FORM) => Protocol::Query,
            _ => Protocol::Json,
        };
        let answer = self.inner.call(request);
        let shared = self.shared.clone();
        HttpConnectorFuture::new(async move { hear(answer.await?, asked, &shared).await })
    }
}

/// Has the SDK ask again at once where the protocol changes.
#[derive(Debug)]
pub(crate) struct AskAgain;

/// Marks an answer for [`AskAgain`].
#[derive(Debug, Clone)]
struct Again;

impl ClassifyRetry for AskAgain {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match context.response().and_then(HttpResponse::extension::<Again>) {
            Some(Again) => {
                RetryAction::retryable_error_with_explicit_delay(ErrorKind::TransientError, Duration::ZERO)
            }
            None => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "other protocol"
    }

    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}

/// Hears what an answer tells of the server, and makes it one that the SDK can read.
async fn hear(
    mut response: HttpResponse,
    asked: Protocol,
    shared: &Shared,
) -> Result<HttpResponse, ConnectorError> {
    let negotiation = &shared.negotiation;
    drop_odd_date(&mut response);
    let body = whole(&mut response, &shared.turns).await?;
    if asked == Protocol::Json && is_plainly_json(&response, negotiation) {
        negotiation.hear(asked, Sign::Speaks(asked));
        hand_on_json(&mut response, body)?;
        return Ok(response);
    }
    let answer = answer::read(&body);
    let sign = match &answer {
        Ok(Some(_)) => Sign::Speaks(Protocol::Query),
        _ if is_baffled(&response, &body) => Sign::Baffled,
        _ if has_json_type(&response) || (asked == Protocol::Json && is_json_result(&response, &body)) => {
            Sign::Speaks(Protocol::Json)
        }
        _ => Sign::None,
    };
    match negotiation.hear(asked, sign) {
        Verdict::AskAgain => {
            replace(&mut response, 500, &not_spoken("ProtocolChanged", asked).json())?;
            response.add_extension(Again);
        }
        // What baffles a server may be something else, and pass: worth the SDK's retries.
        Verdict::WrongChoice => {
            let status = if sign == Sign::Baffled { 500 } else { 400 };
            replace(&mut response, status, &not_spoken(WRONG_PROTOCOL, asked).json())?;
        }
        Verdict::HandOn => hand_on(&mut response, asked, body, answer)?,
    }
    Ok(response)
}

/// Drops a time that is far from this machine's. The SDK signs its next requests for the time that an answer gives, so a
/// clock that is wrong by hours does no harm; with one of the year 9999 it panics, and a request that was signed for
/// another year can be kept and used then.
fn drop_odd_date(response: &mut HttpResponse) {
    let date =
        response.headers().get("date").and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
    let apart = date.map(|date| date.secs().abs_diff(DateTime::from(SystemTime::now()).secs()));
    if apart.is_none_or(|apart| apart > limits::SKEW.as_secs()) {
        response.headers_mut().remove("date");
    }
}

/// Puts what the SDK can read into a response.
fn hand_on(
    response: &mut HttpResponse,
    asked: Protocol,
    body: Vec<u8>,
    answer: Result<Option<Answer>, Error>,
) -> Result<(), ConnectorError> {
    let status = response.status();
    match answer {
        Ok(Some(Answer::Error(refusal))) => refuse(response, &refusal)?,
        Ok(Some(Answer::Result(result))) if status.is_success() => {
            drop(body); // it may be large, and is in the result once more
            replace(response, status.as_u16(), &result)?;
        }
        Err(error) if asked == Protocol::Query && status.is_success() => return Err(failed(error)),
        Ok(None) if asked == Protocol::Query && status.is_success() => return Err(failed(Error::Malformed)),
        _ => hand_on_json(response, body)?,
    }
    Ok(())
}

/// Leaves an answer to the SDK, which reads it as JSON.
fn hand_on_json(response: &mut HttpResponse, body: Vec<u8>) -> Result<(), ConnectorError> {
    let body = match json::check(&body) {
        Ok(()) => body::mend(&body).map_err(failed)?.unwrap_or(body),
        // Some gateway's error page: the status says enough.
        Err(_) if !response.status().is_success() => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    *response.body_mut() = SdkBody::from(body);
    Ok(())
}

/// An answer that can't be used. Garbage and the first half of an answer are worth the SDK's retries, as
/// other trouble of the network is; an answer beyond the limits is not.
fn failed(error: Error) -> ConnectorError {
    match error {
        Error::Malformed => ConnectorError::io(error.into()),
        _ => ConnectorError::other(error.into(), None),
    }
}

fn is_plainly_json(response: &HttpResponse, negotiation: &Negotiation) -> bool {
    let status = response.status();
    let type_or_habit =
        has_json_type(response) || (status.is_success() && negotiation.is_understood(Protocol::Json));
    // HTTP 500 has to be looked at: see [`Sign::Baffled`].
    type_or_habit && status.as_u16() != 500
}

/// LocalStack 0.x answers so whatever goes wrong in it. AWS and LocalStack of today name each answer.
fn is_baffled(response: &HttpResponse, body: &[u8]) -> bool {
    response.status().as_u16() == 500
        && body.trim_ascii() == b"{}"
        && !response.headers().contains_key("x-amzn-requestid")
}

fn has_json_type(response: &HttpResponse) -> bool {
    response.headers().get("content-type").is_some_and(|value| value.starts_with("application/x-amz-json"))
}

fn is_json_result(response: &HttpResponse, body: &[u8]) -> bool {
    response.status().is_success() && body.trim_ascii().starts_with(b"{")
}

/// The whole of a response's body. SQS says the length of every answer, so that its reader can make room for it before; an
/// answer without one gets large only while no other does.
async fn whole(response: &mut HttpResponse, turns: &Arc<Semaphore>) -> Result<Vec<u8>, ConnectorError> {
    let receive = Receive::under_way();
    let most = if receive.is_some() { limits::BYTES } else { limits::OTHER_BYTES };
    let length = response.headers().get("content-length").and_then(|length| length.parse::<usize>().ok());
    if length.is_some_and(|length| length > most) {
        return Err(failed(Error::TooLarge(most)));
    }
    let mut body = ByteStream::new(response.take_body());
    let read = async {
        let mut whole = Vec::with_capacity(length.unwrap_or_default());
        while let Some(part) = body.try_next().await.map_err(|error| ConnectorError::io(error.into()))? {
            let size = whole.len() + part.len();
            if size > most {
                return Err(failed(Error::TooLarge(most)));
            }
            if let Some(receive) = &receive
                && length.is_none()
                && size > limits::UNANNOUNCED_BYTES
            {
                receive.wait_for_turn(turns).await;
            }
            whole.extend_from_slice(&part);
        }
        Ok(whole)
    };
    tokio::time::timeout(limits::TIME, read).await.unwrap_or_else(|_| Err(failed(Error::TooSlow)))
}

fn not_spoken(code: &str, asked: Protocol) -> Refusal {
    Refusal {
        code: code.to_owned(),
        message: format!("the server does not seem to speak {asked}"),
        fault: "Sender".to_owned(),
    }
}

/// Makes a response the AWS JSON protocol's error, with the Query protocol's code in the header where
/// the SDK looks for it.
fn refuse(response: &mut HttpResponse, refusal: &Refusal) -> Result<(), ConnectorError> {
    let status = match response.status() {
        status if !status.is_success() => status.as_u16(),
        _ if refusal.fault == "Receiver" => 500,
        _ => 400,
    };
    replace(response, status, &refusal.json())?;
    let code = format!("{};{}", refusal.code, refusal.fault);
    // A code that fits into no header is in the body alone.
    let _ = response.headers_mut().try_insert("x-amzn-query-error", code);
    Ok(())
}

fn replace(response: &mut HttpResponse, status: u16, body: &Value) -> Result<(), ConnectorError> {
    let mut written = Bounded::default();
    // A Value can always be written; only the room for it may be too small.
    serde_json::to_writer(&mut written, body).map_err(|_| failed(Error::TooLarge(limits::BYTES)))?;
    let body = written.into_bytes();
    if let Ok(status) = StatusCode::try_from(status) {
        *response.status_mut() = status;
    }
    let headers = response.headers_mut();
    headers.insert("content-type", JSON);
    headers.insert("content-length", body.len().to_string());
    *response.body_mut() = SdkBody::from(body);
    Ok(())
}
