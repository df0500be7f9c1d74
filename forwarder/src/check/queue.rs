//! The queue's end: is it there, how is it set up, and may the forwarder do what it has to?

use super::Findings;
use crate::config::Config;
use crate::error::Error;
use crate::queue::Queue;
use aws_sdk_sqs::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_sqs::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sqs::error::BoxError;
use aws_sdk_sqs::types::QueueAttributeName;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Below this, an ordinary hiccup of the database makes messages visible that are still held.
const SHORT_VISIBILITY: Duration = Duration::from_secs(10);
/// An outage uses up one receive, a forwarder that is killed another.
const FEW_RECEIVES: u64 = 3;
/// SQS keeps a message 14 days at most; what an old emulator says beyond that is of another unit.
const LONGEST_RETENTION: Duration = Duration::from_secs(14 * 86_400);
/// No message has it: trying to delete or release that shows whether this is allowed, and no more.
const NOBODYS_HANDLE: &str = "pg_mask-forwarder-check-no-message-has-this-receipt-handle";

/// The queue's end, and for how long the queue keeps a message.
pub(super) async fn check(config: &Config) -> (Findings, Option<Duration>) {
    let mut findings = Findings::default();
    let queue = match Queue::open(config).await {
        Ok(queue) => queue,
        Err(error) => {
            match (matches!(error, Error::Credentials { .. }), error.exit_code()) {
                (true, _) => {
                    findings.failed("credentials", &error);
                    findings.skipped(&["queue"]);
                }
                // It answered, and not that it does not know us.
                (false, 78) => {
                    findings.passed("credentials", "accepted");
                    findings.failed("queue", &error);
                }
                _ => {
                    findings.skipped(&["credentials"]);
                    findings.failed("queue", &error);
                }
            }
            findings.skipped(&["dead letters", "visibility", "delete", "release"]);
            return (findings, None);
        }
    };
    findings.passed("credentials", "accepted");
    let mut retention = None;
    match attributes(&queue).await {
        Ok((endpoint, attributes)) => {
            let fifo = if attributes.contains_key("FifoQueue") { ", FIFO" } else { "" };
            findings.passed(
                "queue",
                format!("{}, asked at {endpoint} in {}{fifo}", queue.url(), queue.protocol()),
            );
            dead_letters(&mut findings, attributes.get("RedrivePolicy"));
            visibility(&mut findings, config.visibility_timeout, attributes.get("VisibilityTimeout"));
            retention = seconds(attributes.get("MessageRetentionPeriod"));
        }
        Err(error) => {
            findings.failed("queue", &error);
            findings.skipped(&["dead letters", "visibility"]);
        }
    }
    // The place in the answer says that the handle is no good; only a call that is refused matters.
    may(&mut findings, "delete", queue.delete(&[NOBODYS_HANDLE]).await);
    may(&mut findings, "release", queue.hide(&[NOBODYS_HANDLE], Duration::ZERO).await);
    (findings, retention.filter(|retention| *retention <= LONGEST_RETENTION))
}

fn may<T>(findings: &mut Findings, check: &'static str, tried: Result<T, Error>) {
    match tried {
        Ok(_) => findings.passed(check, "allowed"),
        Err(error) => findings.failed(check, &error),
    }
}

fn dead_letters(findings: &mut Findings, policy: Option<&String>) {
    const CHECK: &str = "dead letters";
    let policy = policy.and_then(|policy| serde_json::from_str::<serde_json::Value>(policy).ok());
    let arn = policy.as_ref().and_then(|policy| policy["deadLetterTargetArn"].as_str());
    let Some((policy, arn)) = policy.as_ref().zip(arn) else {
        return findings.warning(CHECK, "no queue for them: a message that can't be settled comes again until it expires. Give the queue a RedrivePolicy.");
    };
    let to = arn.rsplit(':').next().unwrap_or(arn);
    let receives = &policy["maxReceiveCount"];
    match receives.as_u64().or_else(|| receives.as_str()?.parse().ok()) {
        Some(receives) if receives < FEW_RECEIVES => findings.warning(CHECK, format!(
            "to {to} after {receives} receives, which outages alone may use up. Raise maxReceiveCount to {FEW_RECEIVES} or more."
        )),
        Some(receives) => findings.passed(CHECK, format!("to {to} after {receives} receives")),
        None => findings.passed(CHECK, format!("to {to}")),
    }
}

fn visibility(findings: &mut Findings, asked: Duration, own: Option<&String>) {
    const CHECK: &str = "visibility";
    let shown = humantime::format_duration(asked);
    if asked < SHORT_VISIBILITY {
        return findings.warning(CHECK, format!(
            "{shown}, in which a slow database may not take a batch in: its messages come again meanwhile. Raise --visibility-timeout to {SHORT_VISIBILITY:?} or more."
        ));
    }
    let own = seconds(own).map(|own| format!("; the queue's own is {}", humantime::format_duration(own)));
    findings.passed(CHECK, format!("{shown}, asked for with each receive{}", own.unwrap_or_default()));
}

fn seconds(attribute: Option<&String>) -> Option<Duration> {
    attribute?.parse().ok().map(Duration::from_secs)
}

/// The queue's attributes by name, and who was asked.
async fn attributes(queue: &Queue) -> Result<(String, HashMap<String, String>), Error> {
    let asked = Asked::default();
    let answer = queue
        .client()
        .get_queue_attributes()
        .queue_url(queue.url())
        .attribute_names(QueueAttributeName::All)
        .customize()
        .interceptor(asked.clone())
        .send()
        .await
        .map_err(|error| Error::of_queue(&error, "GetQueueAttributes"))?;
    let attributes = answer.attributes.unwrap_or_default();
    let by_name = attributes.into_iter().map(|(name, value)| (name.as_str().to_owned(), value)).collect();
    let endpoint = asked.0.lock().map(|endpoint| endpoint.clone()).unwrap_or_default();
    Ok((endpoint, by_name))
}

/// Whom a request goes to: flags, environment and profiles together decide that in the SDK.
#[derive(Debug, Clone, Default)]
struct Asked(Arc<Mutex<String>>);

impl Intercept for Asked {
    fn name(&self) -> &'static str {
        "Asked"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let to = context.request().uri();
        let end = to.find("://").map_or(0, |scheme| scheme + 3);
        let end = to[end..].find('/').map_or(to.len(), |slash| end + slash);
        if let Ok(mut endpoint) = self.0.lock() {
            to[..end].clone_into(&mut endpoint);
        }
        Ok(())
    }
}
