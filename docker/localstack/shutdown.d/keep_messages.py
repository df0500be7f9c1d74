"""Runs when LocalStack is stopped: keeps what waits in its queues, for ready.d to send again.

The forwarder stops before LocalStack does, so what it took is stored and deleted by now. LocalStack
answers no request any more, so this looks where it has its queues (as version 4.14 does).
"""

import json
import os

from localstack.services.sqs.models import sqs_stores

KEPT = "/var/lib/localstack/kept-messages.json"


def bodies(queue):
    """The bodies of all messages of a queue: visible, received but not deleted, and delayed."""
    with queue.mutex:
        messages = [*queue.visible.queue, *queue.inflight, *queue.delayed]
    return [message.message["Body"] for message in messages if not message.deleted]


with open(KEPT) as file:
    still_to_send = json.load(file)
if not still_to_send:  # else ready.d was not done yet, and will do it all again
    queues = sqs_stores["000000000000"]["us-east-1"].queues
    with open(KEPT + ".new", "w") as file:
        json.dump({name: bodies(queue) for name, queue in queues.items()}, file)
    os.replace(KEPT + ".new", KEPT)
