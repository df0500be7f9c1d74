"""Runs when LocalStack is stopped: keeps what waits in its queues, for ready.d to put back.

LocalStack answers no request any more, so this looks where it has its queues (as version 4.14 does).
"""

import json
import os

from localstack.services.sqs.models import sqs_stores

KEPT = "/var/lib/localstack/kept-messages.json"
# A message keeps its id: one that the forwarder has stored and could not delete any more is a duplicate then.
MEMBERS = ("MessageId", "MD5OfBody", "Body", "Attributes")


def messages(queue):
    """All messages of a queue: visible, received but not deleted, and delayed."""
    with queue.mutex:
        waiting = [*queue.visible.queue, *queue.inflight, *queue.delayed]
    return [{name: kept.message[name] for name in MEMBERS} for kept in waiting if not kept.deleted]


with open(KEPT) as file:
    still_to_put_back = json.load(file)
if not still_to_put_back:  # else ready.d was not done yet, and will do it all again
    queues = sqs_stores["000000000000"]["us-east-1"].queues
    with open(KEPT + ".new", "w") as file:
        json.dump({name: messages(queue) for name, queue in queues.items()}, file)
    os.replace(KEPT + ".new", KEPT)
