//! The queue: the few calls of SQS that the forwarder makes, and what their answers mean.
//!
//! The calls go through the SDK. Between it and the network are [`gate`], which lets an answer be read once
//! the budget has room for it, and [`sqs_query`], for servers that don't know AWS JSON. [`aws_settings`] reads
//! the SDK's settings, and [`refusal`] says what an error means.

mod gate;
mod refusal;

pub(crate) use refusal::{is_answered, is_over_limit};

use crate::config::Config;
use crate::error::{End, Error, Kind};
use crate::message::{Body, Message};
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{StalledStreamProtectionConfig, timeout::TimeoutConfig};
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageSystemAttributeName, QueueAttributeName,
};
use flow_control::Reservation;
use gate::Endpoint;
use refusal::classify;
use sqs_query::{Negotiation, Protocol};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The most messages in one call, of any kind (SQS developer guide, "Amazon SQS message quotas").
pub(crate) const CALL_MESSAGES: usize = 10;
/// What a receive asks for beside a message's id, receipt handle and body.
const ATTRIBUTES: [MessageSystemAttributeName; 3] = [
    MessageSystemAttributeName::SentTimestamp,
    MessageSystemAttributeName::ApproximateReceiveCount,
    MessageSystemAttributeName::AwsTraceHeader,
];
/// The states that a message in a queue can be in, and what says how many are.
pub(crate) const STATES: [(&str, QueueAttributeName); 3] = [
    ("visible", QueueAttributeName::ApproximateNumberOfMessages),
    ("in_flight", QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
    ("delayed", QueueAttributeName::ApproximateNumberOfMessagesDelayed),
];
/// SQS: the longest wait of a long poll.
pub(crate) const LONG_POLL: Duration = Duration::from_secs(20);
/// SQS: a message is hidden for 12 hours at most, counted from its receive.
pub(crate) const LONGEST_HIDDEN: Duration = Duration::from_secs(12 * 3600);
/// The longest answer to a receive, in bytes: ten bodies of 1 MiB and what is around them.
pub(crate) const LARGEST_ANSWER: usize = 11 << 20;
/// How long connecting may take, and how long an answer beyond the wait of a long poll.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(15);

/// Splits into chunks of as many as one call takes.
pub(crate) fn chunks<T>(all: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut all = all.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<T> = all.by_ref().take(CALL_MESSAGES).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// A queue, ready to use.
#[derive(Clone)]
pub(crate) struct Queue {
    client: Client,
    /// The same, for long polls, whose answers take longer.
    receiver: Client,
    negotiation: Arc<Negotiation>,
    endpoint: Endpoint,
    url: String,
    visibility_timeout: i32,
}

/// What became of one message of a batch call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What was asked for.
    Done,
    /// Nothing yet: worth trying again.
    Failed,
    /// Its receipt handle has expired. The message is gone, or comes again.
    Lost,
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
        self.visible.saturating_add(self.in_flight).saturating_add(self.delayed)
    }
}

impl Queue {
    /// Finds the queue and asks it for its attributes, so that what is wrong shows at once.
    pub(crate) async fn open(config: &Config) -> Result<Self, Error> {
        let settings = aws_settings::load()
            .await
            .map_err(|error| Error::new(Kind::SetUp, Some(End::Queue), error.to_string()).caused_by(error))?;
        let endpoint = Endpoint::default();
        let http = settings.http_client().map(|http| gate::gated(http, endpoint.clone()));
        let mut settings = settings.into_builder();
        settings.set_http_client(http);
        let settings = settings.build();
        let negotiation = Arc::new(Negotiation::new(config.sqs_protocol));
        let client = Client::from_conf(answers_within(&settings, &negotiation, ANSWER));
        let receiver = Client::from_conf(answers_within(&settings, &negotiation, LONG_POLL + ANSWER));
        let url = match (&config.queue.queue_url, &config.queue.queue_name) {
            (Some(url), _) => url.clone(),
            (None, name) => {
                let answer = client.get_queue_url().set_queue_name(name.clone()).send().await;
                let answer = answer.map_err(|error| classify(error, "GetQueueUrl", &endpoint))?;
                answer.queue_url.unwrap_or_default()
            }
        };
        let visibility_timeout = config.visibility_timeout.as_secs() as i32;
        let queue = Self { client, receiver, negotiation, endpoint, url, visibility_timeout };
        queue.counts().await?;
        if let (Some(_), Some(warning)) = (&config.queue.queue_url, queue.other_host()) {
            tracing::warn!("{warning}");
        }
        Ok(queue)
    }

    /// The queue's URL, without a name and a password that it may hold.
    pub(crate) fn url(&self) -> String {
        let path = self.url.split_once("://").map_or(&*self.url, |(_, rest)| rest);
        let path = path.find('/').map_or("", |slash| &path[slash..]);
        format!("{}{path}", aws_settings::endpoint_of(&self.url))
    }

    /// What to look at where the queue's URL names another host than the one that is asked.
    pub(crate) fn other_host(&self) -> Option<String> {
        let (named, asked) = (aws_settings::endpoint_of(&self.url), self.endpoint());
        (named != asked).then(|| {
            format!("the queue's URL names {named}, and {asked} is asked; is AWS_ENDPOINT_URL or AWS_REGION right?")
        })
    }

    /// The endpoint that requests go to.
    pub(crate) fn endpoint(&self) -> &str {
        self.endpoint.get().map_or("", String::as_str)
    }

    /// The protocol that is in use with the queue's server.
    pub(crate) fn protocol(&self) -> Protocol {
        self.negotiation.protocol()
    }

    /// Whether it is a FIFO queue (SQS: its name ends so).
    pub(crate) fn is_fifo(&self) -> bool {
        self.url.ends_with(".fifo")
    }

    /// Receives up to `most` (ten) messages, waiting up to `wait` for the first.
    pub(crate) async fn receive(
        &self,
        most: usize,
        wait: Duration,
        reservation: Reservation,
    ) -> Result<Vec<Message>, Error> {
        let receive = self
            .receiver
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(most as i32)
            .wait_time_seconds(wait.as_secs() as i32)
            .visibility_timeout(self.visibility_timeout)
            .set_message_system_attribute_names(Some(ATTRIBUTES.to_vec()))
            // If the answer is lost, a retry gets the same messages; else their groups would be locked until
            // the visibility timeout.
            .set_receive_request_attempt_id(self.is_fifo().then(sqs_query::random_id))
            .send();
        let (answer, _turn) = sqs_query::receiving(gate::within(reservation.clone(), receive)).await;
        let answer = answer.map_err(|error| classify(error, "ReceiveMessage", &self.endpoint))?;
        let messages = answer.messages.unwrap_or_default();
        // There are permits for as many as were asked for. The others come again.
        if messages.len() > most {
            let (endpoint, number) = (self.endpoint(), messages.len());
            let text = format!("the queue at {endpoint} gave {number} messages where {most} were asked for");
            return Err(Error::transient(End::Queue, text));
        }
        let messages: Vec<_> = messages.into_iter().filter_map(read).collect();
        reservation.wait_for_room(messages.iter().map(Message::size).sum()).await;
        Ok(messages)
    }

    /// Deletes up to ten messages; says of each what became of it.
    pub(crate) async fn delete(&self, receipt_handles: &[&str]) -> Result<Vec<Outcome>, Error> {
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
            .map_err(|error| classify(error, "DeleteMessageBatch", &self.endpoint))?;
        let successful = answer.successful.iter().map(|entry| entry.id.as_str());
        Ok(outcomes(receipt_handles.len(), successful, &answer.failed))
    }

    /// Gives up to ten messages another visibility timeout, from now on; zero makes them visible at once.
    pub(crate) async fn change_visibility(
        &self,
        receipt_handles: &[&str],
        timeout: Duration,
    ) -> Result<Vec<Outcome>, Error> {
        let entry = |(place, handle): (usize, &&str)| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(place.to_string())
                .receipt_handle(*handle)
                .visibility_timeout(timeout.as_secs() as i32)
                .build()
        };
        let answer = self
            .client
            .change_message_visibility_batch()
            .queue_url(&self.url)
            .set_entries(receipt_handles.iter().enumerate().map(entry).collect::<Result<_, _>>().ok())
            .send()
            .await
            .map_err(|error| classify(error, "ChangeMessageVisibilityBatch", &self.endpoint))?;
        let successful = answer.successful.iter().map(|entry| entry.id.as_str());
        Ok(outcomes(receipt_handles.len(), successful, &answer.failed))
    }

    /// The queue's attributes, by name.
    pub(crate) async fn attributes(
        &self,
        names: &[QueueAttributeName],
    ) -> Result<HashMap<String, String>, Error> {
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .set_attribute_names(Some(names.to_vec()))
            .send()
            .await
            .map_err(|error| classify(error, "GetQueueAttributes", &self.endpoint))?;
        let attributes = answer.attributes.unwrap_or_default();
        Ok(attributes.into_iter().map(|(name, value)| (name.as_str().to_owned(), value)).collect())
    }

    /// How many messages the queue has in each state, as far as it says.
    pub(crate) async fn counts(&self) -> Result<[Option<u64>; 3], Error> {
        let attributes = self.attributes(&STATES.map(|(_, name)| name)).await?;
        Ok(STATES.map(|(_, name)| attributes.get(name.as_str()).and_then(|number| number.parse().ok())))
    }

    /// How many messages the queue has. A count that is missing is not 0: a drain would take the queue for empty.
    pub(crate) async fn depth(&self) -> Result<Depth, Error> {
        let counts = self.counts().await?;
        let number = |at: usize| {
            let name = &STATES[at].1;
            let text = format!(
                "the queue at {} does not say {name}, without which --drain can't tell whether it is empty",
                self.endpoint()
            );
            counts[at].ok_or_else(|| Error::new(Kind::SetUp, Some(End::Queue), text))
        };
        Ok(Depth { visible: number(0)?, in_flight: number(1)?, delayed: number(2)? })
    }
}

/// Settings for a client that waits so long for an answer to begin: a silent network is an outage, too. For the rest of
/// an answer [`sqs_query`] has a limit, so that the SDK need not watch how quickly bytes come and go.
fn answers_within(
    settings: &SdkConfig,
    negotiation: &Arc<Negotiation>,
    time: Duration,
) -> aws_sdk_sqs::Config {
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).read_timeout(time).build();
    let config = sqs_query::client_config(settings, negotiation).timeout_config(timeouts);
    config.stalled_stream_protection(StalledStreamProtectionConfig::disabled()).build()
}

/// What the answer to a batch call says of each of `count` places: such a call can fail in part.
fn outcomes<'a>(
    count: usize,
    successful: impl Iterator<Item = &'a str>,
    failed: &[BatchResultErrorEntry],
) -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::Failed; count];
    let lost = failed.iter().filter(|entry| is_lost(entry)).map(|entry| (entry.id.as_str(), Outcome::Lost));
    for (place, found) in successful.map(|id| (id, Outcome::Done)).chain(lost) {
        if let Some(outcome) = place.parse().ok().and_then(|place: usize| outcomes.get_mut(place)) {
            *outcome = found;
        }
    }
    outcomes
}

/// Whether it is useless to try again: the handle has expired, or its message or queue is gone. The code alone says so
/// (SQS API reference, errors of `DeleteMessage` and `ChangeMessageVisibility`): to SQS a call that is throttled is the
/// sender's fault, too, and that passes.
fn is_lost(entry: &BatchResultErrorEntry) -> bool {
    const LOST: [&str; 6] = [
        "ReceiptHandleIsInvalid",
        "InvalidIdFormat",
        "InvalidParameterValue",
        "MessageNotInflight",
        "QueueDoesNotExist",
        "NonExistentQueue",
    ];
    let code = entry.code.rsplit(['.', '#']).next().unwrap_or_default();
    LOST.iter().any(|lost| code.starts_with(lost))
}

/// `None` for a message without a receipt handle or an id that PostgreSQL can hold: SQS gives none such.
fn read(message: aws_sdk_sqs::types::Message) -> Option<Message> {
    let attribute = |name| message.attributes.as_ref().and_then(|all| all.get(&name));
    let [sent_at, receive_count, trace] = ATTRIBUTES.map(attribute);
    let sent_at = sent_at.and_then(|text| sqs_query::sent_at(text));
    let receive_count = receive_count.and_then(|text| text.parse().ok());
    Some(Message {
        id: message.message_id.filter(|id| !id.contains('\0'))?,
        receipt_handle: message.receipt_handle?.into(),
        body: Body(sqs_query::Body::of(message.body.unwrap_or_default()).into_bytes()),
        sent_at,
        receive_count,
        trace: trace.and_then(|header| sqs_query::trace_header(header)).map(Into::into),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is throttled was taken for lost where it is the sender's fault: the message came again, and again.
    #[test]
    fn an_entry_is_lost_by_its_code_and_not_by_whose_fault_it_is() {
        let outcome = |code: &str, sender_fault| {
            let entry = BatchResultErrorEntry::builder().id("1").code(code).sender_fault(sender_fault);
            outcomes(3, std::iter::once("0"), &[entry.build().unwrap()])
        };
        for sender_fault in [true, false] {
            for code in [
                "ReceiptHandleIsInvalid",
                "InvalidParameterValue",
                "InvalidParameterValueException",
                "AWS.SimpleQueueService.MessageNotInflight",
                "com.amazonaws.sqs#MessageNotInflight",
                "AWS.SimpleQueueService.NonExistentQueue",
            ] {
                let expected = [Outcome::Done, Outcome::Lost, Outcome::Failed];
                assert_eq!(outcome(code, sender_fault), expected, "{code}");
            }
            for code in [
                "RequestThrottled",
                "KmsThrottled",
                "KMS.ThrottlingException",
                "KMS.DisabledException",
                "AccessDenied",
                "InternalError",
                "",
            ] {
                let expected = [Outcome::Done, Outcome::Failed, Outcome::Failed];
                assert_eq!(outcome(code, sender_fault), expected, "{code}");
            }
        }
    }
}
