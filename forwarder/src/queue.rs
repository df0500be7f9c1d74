//! The queue: the few calls of SQS that the forwarder makes, and what their answers mean.

use crate::config::Config;
use crate::error::Error;
use crate::message::{self, Body, Message};
use crate::protocol::{self, Protocol, Spoken};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, MessageSystemAttributeName,
    QueueAttributeName,
};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use std::sync::Arc;
use std::time::Duration;

/// The most messages in one call, of any kind (SQS developer guide, "Amazon SQS message quotas").
pub(crate) const CALL_MESSAGES: usize = 10;

/// A queue, ready to use.
#[derive(Clone)]
pub(crate) struct Queue {
    client: Client,
    spoken: Arc<Spoken>,
    url: String,
    visibility_timeout: i32,
}

/// How many messages a queue has, roughly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) visible: u64,
    pub(crate) in_flight: u64,
    pub(crate) delayed: u64,
}

impl Depth {
    pub(crate) fn total(self) -> u64 {
        self.visible + self.in_flight + self.delayed
    }
}

impl Queue {
    /// Finds the queue and asks it for its attributes, so that what is wrong shows at once.
    pub(crate) async fn open(config: &Config) -> Result<Self, Error> {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let settings = aws_config::defaults(aws_sdk_sqs::config::BehaviorVersion::latest())
            .http_client(http)
            .load()
            .await;
        let spoken = Arc::new(Spoken::new(config.sqs_protocol));
        let client = Client::from_conf(protocol::speaking(&settings, &spoken).build());
        let url = match (&config.queue.queue_url, &config.queue.queue_name) {
            (Some(url), _) => url.clone(),
            (None, name) => {
                let answer = client.get_queue_url().set_queue_name(name.clone()).send().await;
                let answer = answer.map_err(|error| Error::of_queue(&error, "GetQueueUrl"))?;
                answer.queue_url.unwrap_or_default()
            }
        };
        let visibility_timeout = config.visibility_timeout.as_secs_f64().ceil() as i32;
        let queue = Self { client, spoken, url, visibility_timeout };
        queue.depth().await?;
        Ok(queue)
    }

    /// For what is asked elsewhere.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The protocol that the queue's server is spoken to in.
    pub(crate) fn protocol(&self) -> Protocol {
        self.spoken.protocol()
    }

    /// Receives up to `most` (ten) messages, waiting up to `wait` for the first.
    pub(crate) async fn receive(&self, most: u32, wait: Duration) -> Result<Vec<Message>, Error> {
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(most as i32)
            .wait_time_seconds(wait.as_secs() as i32)
            .visibility_timeout(self.visibility_timeout)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .send()
            .await
            .map_err(|error| Error::of_queue(&error, "ReceiveMessage"))?;
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(read).collect())
    }

    /// Deletes up to ten messages; `true` in the place of each that is gone.
    pub(crate) async fn delete(&self, receipt_handles: &[&str]) -> Result<Vec<bool>, Error> {
        let entry = |(place, handle): (usize, &&str)| {
            DeleteMessageBatchRequestEntry::builder().id(place.to_string()).receipt_handle(*handle).build()
        };
        let answer = self
            .client
            .delete_message_batch()
            .queue_url(&self.url)
            .set_entries(receipt_handles.iter().enumerate().map(entry).collect::<Result<_, _>>().ok())
            .send()
            .await
            .map_err(|error| Error::of_queue(&error, "DeleteMessageBatch"))?;
        Ok(done(receipt_handles.len(), answer.successful.iter().map(|entry| entry.id.as_str())))
    }

    /// Makes up to ten messages visible again at once; `true` in the place of each that is.
    pub(crate) async fn release(&self, receipt_handles: &[&str]) -> Result<Vec<bool>, Error> {
        let entry = |(place, handle): (usize, &&str)| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(place.to_string())
                .receipt_handle(*handle)
                .visibility_timeout(0)
                .build()
        };
        let answer = self
            .client
            .change_message_visibility_batch()
            .queue_url(&self.url)
            .set_entries(receipt_handles.iter().enumerate().map(entry).collect::<Result<_, _>>().ok())
            .send()
            .await
            .map_err(|error| Error::of_queue(&error, "ChangeMessageVisibilityBatch"))?;
        Ok(done(receipt_handles.len(), answer.successful.iter().map(|entry| entry.id.as_str())))
    }

    /// How many messages the queue has.
    pub(crate) async fn depth(&self) -> Result<Depth, Error> {
        use QueueAttributeName as Name;
        let names = [
            Name::ApproximateNumberOfMessages,
            Name::ApproximateNumberOfMessagesNotVisible,
            Name::ApproximateNumberOfMessagesDelayed,
        ];
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .set_attribute_names(Some(names.to_vec()))
            .send()
            .await
            .map_err(|error| Error::of_queue(&error, "GetQueueAttributes"))?;
        let attributes = answer.attributes.unwrap_or_default();
        let [visible, in_flight, delayed] =
            names.map(|name| attributes.get(&name).and_then(|number| number.parse().ok()).unwrap_or(0));
        Ok(Depth { visible, in_flight, delayed })
    }
}

/// Which of `count` places the answer of a batch call names as done: such a call can fail in part.
fn done<'a>(count: usize, successful: impl Iterator<Item = &'a str>) -> Vec<bool> {
    let mut done = vec![false; count];
    for place in successful {
        if let Some(done) = place.parse().ok().and_then(|place: usize| done.get_mut(place)) {
            *done = true;
        }
    }
    done
}

/// A message without an id or a receipt handle is none that can be settled; no SQS gives one.
fn read(message: aws_sdk_sqs::types::Message) -> Option<Message> {
    let attribute = |name| message.attributes.as_ref().and_then(|all| all.get(&name));
    let sent_at =
        attribute(MessageSystemAttributeName::SentTimestamp).and_then(|text| message::sent_at(text));
    let receive_count =
        attribute(MessageSystemAttributeName::ApproximateReceiveCount).and_then(|text| text.parse().ok());
    Some(Message {
        id: message.message_id?,
        receipt_handle: message.receipt_handle?,
        body: Body(message.body.unwrap_or_default()),
        sent_at,
        receive_count,
        place: None,
    })
}
