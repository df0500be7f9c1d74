//! Between the SDK and the network: the answer to a receive is read once the budget has room for it, and
//! the endpoint is remembered that requests are sent to.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use flow_control::Reservation;
use std::sync::{Arc, OnceLock};

tokio::task_local! {
    /// What the receive that this task has under way has of the budget. Other calls have nothing of it.
    static RESERVATION: Reservation;
}

/// Runs a receive, whose answer is read within a reservation.
pub(super) async fn within<T>(reservation: Reservation, receive: impl Future<Output = T>) -> T {
    RESERVATION.scope(reservation, receive).await
}

/// The endpoint that requests are sent to, as in `http://127.0.0.1:4566`, known from the first one on: flags,
/// environment and profiles together decide in the SDK which it is.
pub(super) type Endpoint = Arc<OnceLock<String>>;

/// Puts the gate before the SDK's own HTTP client.
pub(super) fn gated(client: SharedHttpClient, endpoint: Endpoint) -> SharedHttpClient {
    http_client_fn(move |settings, components| {
        let inner = client.http_connector(settings, components);
        SharedHttpConnector::new(Gate { inner, endpoint: endpoint.clone() })
    })
}

#[derive(Debug)]
struct Gate {
    inner: SharedHttpConnector,
    endpoint: Endpoint,
}

impl HttpConnector for Gate {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.endpoint.get_or_init(|| aws_settings::endpoint_of(request.uri()));
        let answer = self.inner.call(request);
        let Ok(reservation) = RESERVATION.try_with(Clone::clone) else { return answer };
        HttpConnectorFuture::new(async move {
            let answer = answer.await?;
            // SQS always says the length; some emulators don't.
            let length = answer.headers().get("content-length").and_then(|length| length.parse().ok());
            reservation.wait_until_readable(length).await;
            Ok(answer)
        })
    }
}
