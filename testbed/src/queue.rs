//! A queue at an emulator, seen from outside of the forwarder.

use crate::Result;
use crate::emulator::Emulator;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{QueueAttributeName as Attribute, SendMessageBatchRequestEntry};

/// A queue.
#[derive(Debug, Clone)]
pub struct Queue {
    /// The client, for whatever is not here.
    pub client: Client,
    /// The queue's URL.
    pub url: String,
    /// The queue's name.
    pub name: String,
}

impl Queue {
    /// Makes a queue.
    pub async fn create(emulator: &Emulator, name: &str) -> Result<Self> {
        let client = emulator.client();
        let made = client.create_queue().queue_name(name).send().await?;
        Ok(Self { client, url: made.queue_url.unwrap_or_default(), name: name.to_owned() })
    }

    /// Sends bodies, ten a call.
    pub async fn send(&self, bodies: &[String]) -> Result<()> {
        for ten in bodies.chunks(10) {
            let entry = |(place, body): (usize, &String)| {
                SendMessageBatchRequestEntry::builder().id(place.to_string()).message_body(body).build()
            };
            let entries = ten.iter().enumerate().map(entry).collect::<std::result::Result<Vec<_>, _>>()?;
            let call = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
            let failed = call.send().await?.failed;
            if !failed.is_empty() {
                return Err(format!("{} messages were not sent: {failed:?}", failed.len()).into());
            }
        }
        Ok(())
    }

    /// How many messages are visible, in flight and delayed.
    pub async fn depth(&self) -> Result<[u64; 3]> {
        let names = [
            Attribute::ApproximateNumberOfMessages,
            Attribute::ApproximateNumberOfMessagesNotVisible,
            Attribute::ApproximateNumberOfMessagesDelayed,
        ];
        let call = self.client.get_queue_attributes().queue_url(&self.url);
        let answer = call.set_attribute_names(Some(names.to_vec())).send().await?;
        let attributes = answer.attributes.unwrap_or_default();
        let number = |name| attributes.get(&name).and_then(|n| n.parse().ok());
        // What is not said is not 0.
        match names.map(number) {
            [Some(visible), Some(in_flight), Some(delayed)] => Ok([visible, in_flight, delayed]),
            _ => Err("the queue does not say how many messages it has".into()),
        }
    }
}
