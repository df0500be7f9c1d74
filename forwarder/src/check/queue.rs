//! The queue's end: is it there, how is it set up, and may the forwarder do what it has to?

use super::findings::Findings;
use crate::config::Config;
use crate::error::{Error, Kind};
use crate::queue::{Queue, is_answered};
use aws_sdk_sqs::types::QueueAttributeName;
use std::time::Duration;

/// With less, an ordinary delay of the database makes messages visible that are still held.
const SHORT_VISIBILITY: Duration = Duration::from_secs(10);
/// An outage uses up one receive, and a forwarder that is killed another.
const FEW_RECEIVES: u64 = 3;
/// SQS keeps a message for 14 days at most. A larger number, from an old emulator, is of another unit.
const LONGEST_RETENTION: Duration = Duration::from_secs(14 * 86_400);
/// No message has this handle: the call changes nothing, and shows whether it is allowed.
const UNKNOWN_HANDLE: &str = "pg_mask-forwarder-check-no-message-has-this-receipt-handle";

/// The queue's end, and for how long the queue keeps a message.
pub(super) async fn check(config: &Config) -> (Findings, Option<Duration>) {
    let mut findings = Findings::default();
    let queue = match Queue::open(config).await {
        Ok(queue) => queue,
        Err(error) => {
            match error.kind {
                Kind::Credentials => {
                    findings.failed("credentials", &error);
                    findings.skipped(&["queue"]);
                }
                // It answered, and it accepted the credentials.
                Kind::SetUp if is_answered(&error) => {
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
    match queue.attributes(&[QueueAttributeName::All]).await {
        Ok(attributes) => {
            let fifo = if attributes.contains_key("FifoQueue") { ", FIFO" } else { "" };
            let asked =
                format!("{}, asked at {} in {}{fifo}", queue.url(), queue.endpoint(), queue.protocol());
            match queue.other_host().filter(|_| config.queue.queue_url.is_some()) {
                Some(warning) => findings.warning("queue", format!("{asked}; {warning}")),
                None => findings.passed("queue", asked),
            }
            dead_letters(&mut findings, attributes.get("RedrivePolicy"));
            visibility(&mut findings, config.visibility_timeout, attributes.get("VisibilityTimeout"));
            retention = seconds(attributes.get("MessageRetentionPeriod"));
        }
        Err(error) => {
            findings.failed("queue", &error);
            findings.skipped(&["dead letters", "visibility"]);
        }
    }
    // The answer says that the handle is not valid; what matters is whether the call is refused.
    may(&mut findings, "delete", queue.delete(&[UNKNOWN_HANDLE]).await);
    may(&mut findings, "release", queue.change_visibility(&[UNKNOWN_HANDLE], Duration::ZERO).await);
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
        return findings.warning(CHECK, "no queue for them: a message that can't be stored comes again until it expires. Give the queue a RedrivePolicy.");
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
