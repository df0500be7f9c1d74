"""Runs when LocalStack is ready: makes login-queue, with a dead-letter queue behind it.

LocalStack keeps queues in memory alone. The first time, the sample logins are sent; after that, what
waited when LocalStack was last stopped (shutdown.d keeps it). After a crash there is nothing to send.
"""

import json
import os

import boto3

QUEUE = "login-queue"
DEAD_LETTERS = "login-queue-dead-letters"
# The forwarder gives up on no message: what is no login goes to the quarantine. This many receives
# without an end mean that something else is wrong with it.
MOST_RECEIVES = "20"
SAMPLES = "/opt/sample-logins.jsonl"
KEPT = "/var/lib/localstack/kept-messages.json"

sqs = boto3.client(
    "sqs",
    endpoint_url="http://localhost:4566",
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",
)


def make(name, **attributes):
    """Makes a queue that keeps messages for 14 days, the most that SQS has."""
    attributes["MessageRetentionPeriod"] = "1209600"
    return sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]


def send(url, bodies):
    """Sends bodies, ten a call."""
    for start in range(0, len(bodies), 10):
        entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[start : start + 10])]
        failed = sqs.send_message_batch(QueueUrl=url, Entries=entries).get("Failed")
        if failed:
            raise RuntimeError(f"{len(failed)} messages were not sent")


def keep(bodies_by_queue):
    """Writes whole or not at all what is to be sent the next time."""
    with open(KEPT + ".new", "w") as file:
        json.dump(bodies_by_queue, file)
    os.replace(KEPT + ".new", KEPT)


if os.path.exists(KEPT):
    with open(KEPT) as file:
        waiting = json.load(file)
else:
    with open(SAMPLES) as file:
        waiting = {QUEUE: file.read().splitlines()}

dead_letters = make(DEAD_LETTERS)
arn = sqs.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
policy = {"deadLetterTargetArn": arn, "maxReceiveCount": MOST_RECEIVES}
login_queue = make(QUEUE, RedrivePolicy=json.dumps(policy))

send(dead_letters, waiting.get(DEAD_LETTERS, []))
send(login_queue, waiting.get(QUEUE, []))
keep({})
