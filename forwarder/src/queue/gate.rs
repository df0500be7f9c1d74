//! Between the SDK and the network: the answer to a receive is read once there is room for it.

use crate::pipeline::Reserved;
use aws_sdk_sqs::config::ConfigBag;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};

tokio::task_local! {
    /// The room of the receive that this task has under way; other calls have none and need none.
    static ROOM: Reserved;
}

/// Runs a receive whose answer needs room.
pub(crate) async fn with_room<T>(room: Reserved, receive: impl Future<Output = T>) -> T {
    ROOM.scope(room, receive).await
}

/// The SDK's own HTTP client, with the gate before it.
#[derive(Debug)]
pub(crate) struct Gate(pub(crate) SharedHttpClient);

#[derive(Debug)]
struct Connector(SharedHttpConnector);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        let Ok(room) = ROOM.try_with(Clone::clone) else { return answer };
        HttpConnectorFuture::new(async move {
            let answer = answer.await?;
            let length = answer.headers().get("content-length").and_then(|length| length.parse().ok());
            room.answer(length).await;
            Ok(answer)
        })
    }
}

impl HttpClient for Gate {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector(self.0.http_connector(settings, components)))
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.validate_base_client_config(components, config)
    }

    fn validate_final_config(
        &self,
        components: &RuntimeComponents,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.validate_final_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}
