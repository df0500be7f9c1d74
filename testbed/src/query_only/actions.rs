//! The actions: what each takes, does and answers. Shapes: Amazon SQS API Reference, 2012-11-05.

use super::call::Call;
use super::refusal::Refusal;
use super::store::Stored;
use super::xml::{attribute, document, escaped};
use super::{Manners, State, lock};
use md5::{Digest, Md5};
use std::time::{Duration, Instant, SystemTime};

/// How often a long poll looks.
const LOOK: Duration = Duration::from_millis(10);

/// Does what is asked and answers in XML.
pub(super) async fn answer(state: &State, mut call: Call) -> Result<String, Refusal> {
    let action = call.action.clone();
    if action != "GetQueueUrl" {
        check_queue(state, &mut call)?;
    }
    let result = match action.as_str() {
        "GetQueueUrl" => get_queue_url(state, call)?,
        "GetQueueAttributes" => get_queue_attributes(state, call)?,
        "ReceiveMessage" => receive_message(state, call).await?,
        "DeleteMessageBatch" => delete_message_batch(state, call)?,
        "ChangeMessageVisibilityBatch" => change_message_visibility_batch(state, call)?,
        _ => return Err(Refusal::sender("InvalidAction", "there is no such action")),
    };
    let metadata = "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>";
    Ok(document(
        &format!("{action}Response"),
        &format!("<{action}Result>{result}</{action}Result>{metadata}"),
    ))
}

/// A call goes to its queue's path.
fn check_queue(state: &State, call: &mut Call) -> Result<(), Refusal> {
    let store = lock(&state.store);
    let url = call.take("QueueUrl");
    if call.path != store.path() || url.is_some_and(|url| !url.ends_with(&store.path())) {
        return Err(no_such_queue());
    }
    Ok(())
}

fn no_such_queue() -> Refusal {
    Refusal::sqs("NonExistentQueue", "The specified queue does not exist for this wsdl version.")
}

fn get_queue_url(state: &State, mut call: Call) -> Result<String, Refusal> {
    let name = call.need("QueueName")?;
    call.end()?;
    let store = lock(&state.store);
    if name != store.name {
        return Err(no_such_queue());
    }
    Ok(format!("<QueueUrl>{}</QueueUrl>", store.url()))
}

fn get_queue_attributes(state: &State, mut call: Call) -> Result<String, Refusal> {
    let names = call.list("AttributeName");
    call.end()?;
    let [visible, in_flight] = lock(&state.store).depth();
    let all = [
        ("ApproximateNumberOfMessages", visible),
        ("ApproximateNumberOfMessagesNotVisible", in_flight),
        ("ApproximateNumberOfMessagesDelayed", 0),
        ("VisibilityTimeout", 30),
    ];
    if !names.iter().all(|asked| asked == "All" || all.iter().any(|(name, _)| name == asked)) {
        return Err(Refusal::sender("InvalidAttributeName", "there is no such attribute"));
    }
    let asked = all.iter().filter(|(name, _)| names.iter().any(|asked| asked == name || asked == "All"));
    Ok(asked.map(|(name, value)| attribute(name, &value.to_string())).collect())
}

async fn receive_message(state: &State, mut call: Call) -> Result<String, Refusal> {
    let most = call.number("MaxNumberOfMessages", 1..=10, 1)?;
    let wait = Duration::from_secs(call.number("WaitTimeSeconds", 0..=20, 0)?);
    let hidden_for = Duration::from_secs(call.number("VisibilityTimeout", 0..=43_200, 30)?);
    let attributes = call.list("AttributeName");
    call.end()?;
    let until = Instant::now() + wait;
    loop {
        let received = lock(&state.store).receive(most as usize, hidden_for);
        if !received.is_empty() || Instant::now() >= until {
            let manners = *lock(&state.manners);
            return Ok(received.iter().map(|stored| message(stored, manners, &attributes)).collect());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A message with those of its attributes that were asked for.
fn message(stored: &Stored, manners: Manners, asked: &[String]) -> String {
    let mut message = format!(
        "<Message><MessageId>{}</MessageId><ReceiptHandle>{}</ReceiptHandle><MD5OfBody>{}</MD5OfBody><Body>{}</Body>",
        stored.id,
        escaped(&stored.receipt_handle),
        hex::encode(Md5::digest(stored.body.as_bytes())),
        escaped(&stored.body),
    );
    if !manners.no_attributes {
        let sent = stored.sent_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let sent = if manners.seconds { sent.as_secs().into() } else { sent.as_millis() };
        let count = stored.receive_count.to_string();
        for (name, value) in [("SentTimestamp", sent.to_string()), ("ApproximateReceiveCount", count)] {
            if asked.iter().any(|asked| asked == name || asked == "All") {
                message.push_str(&attribute(name, &value));
            }
        }
    }
    message.push_str("</Message>");
    message
}

fn delete_message_batch(state: &State, mut call: Call) -> Result<String, Refusal> {
    let entries = call.entries(["ReceiptHandle"])?;
    call.end()?;
    let mut store = lock(&state.store);
    let mut manners = lock(&state.manners);
    let one = |(id, [handle]): (String, [String; 1])| {
        if manners.failing_deletes > 0 {
            manners.failing_deletes -= 1;
            return failed(&id, "InternalError", false);
        }
        // A handle whose message is gone or has a newer one is no error, but deletes nothing.
        store.delete(&handle);
        format!("<DeleteMessageBatchResultEntry><Id>{}</Id></DeleteMessageBatchResultEntry>", escaped(&id))
    };
    Ok(entries.into_iter().map(one).collect())
}

fn change_message_visibility_batch(state: &State, mut call: Call) -> Result<String, Refusal> {
    let entries = call.entries(["ReceiptHandle", "VisibilityTimeout"])?;
    call.end()?;
    let mut store = lock(&state.store);
    let one = |(id, [handle, hidden_for]): (String, [String; 2])| {
        let hidden_for = hidden_for.parse().ok().filter(|seconds| *seconds <= 43_200);
        match hidden_for {
            None => failed(&id, "InvalidParameterValue", true),
            Some(seconds) if store.hide(&handle, Duration::from_secs(seconds)) => format!(
                "<ChangeMessageVisibilityBatchResultEntry><Id>{}</Id></ChangeMessageVisibilityBatchResultEntry>",
                escaped(&id)
            ),
            Some(_) => failed(&id, "AWS.SimpleQueueService.MessageNotInflight", true),
        }
    };
    Ok(entries.into_iter().map(one).collect())
}

fn failed(id: &str, code: &str, sender_fault: bool) -> String {
    let id = escaped(id);
    format!(
        "<BatchResultErrorEntry><Id>{id}</Id><Code>{code}</Code><Message>-</Message><SenderFault>{sender_fault}</SenderFault></BatchResultErrorEntry>"
    )
}
