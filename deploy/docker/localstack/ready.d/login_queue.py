"""Runs when LocalStack is ready: makes login-queue, with a dead-letter queue behind it.

LocalStack keeps queues in memory alone. The first time, the sample logins are sent; after that, what
waited when LocalStack was last stopped is put back (shutdown.d keeps it). After a crash there is nothing.
"""

import json
import os

import boto3
from localstack.services.sqs.models import sqs_stores

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


def put_back(name, messages):
    """Puts kept messages into a queue with the ids and times of sending that they had. SQS has no request
    for that, so this goes where LocalStack has its queues (as version 4.14 does)."""
    queue = sqs_stores["000000000000"]["us-east-1"].queues[name]
    for message in messages:
        queue.put(message)


def keep(messages_by_queue):
    """Writes whole or not at all what is to be put back the next time."""
    with open(KEPT + ".new", "w") as file:
        json.dump(messages_by_queue, file)
    os.replace(KEPT + ".new", KEPT)


dead_letters = make(DEAD_LETTERS)
arn = sqs.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
policy = {"deadLetterTargetArn": arn, "maxReceiveCount": MOST_RECEIVES}
login_queue = make(QUEUE, RedrivePolicy=json.dumps(policy))

if os.path.exists(KEPT):
    with open(KEPT) as file:
        kept = json.load(file)
    for name in (QUEUE, DEAD_LETTERS):
        put_back(name, kept.get(name, []))
else:
    with open(SAMPLES) as file:
        send(login_queue, file.read().splitlines())
keep({})
