"""A predecessor that was tuned: eight threads, ten rows a statement, ten deletes a call."""

import hashlib
import json
import os
import threading

import boto3
import psycopg2
from botocore.config import Config
from psycopg2.extras import execute_values

THREADS = 8


def mask(value):
    return None if value is None else hashlib.sha256(value.encode()).hexdigest()


def row(event):
    return (
        event["user_id"],
        event["device_type"],
        mask(event["ip"]),
        mask(event["device_id"]),
        event["locale"],
        int(event["app_version"].replace(".", "")),
    )


sqs = boto3.client("sqs", config=Config(max_pool_connections=THREADS))
queue = os.environ["QUEUE_URL"]


def work():
    database = psycopg2.connect(os.environ["DATABASE_URL"])
    cursor = database.cursor()
    while True:
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
        if not messages:
            continue
        execute_values(
            cursor,
            "INSERT INTO user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date) VALUES %s",
            [row(json.loads(message["Body"])) for message in messages],
            template="(%s, %s, %s, %s, %s, %s, current_date)",
        )
        database.commit()
        entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
        sqs.delete_message_batch(QueueUrl=queue, Entries=entries)


def run():
    try:
        work()
    finally:
        os._exit(1)  # one thread that fails ends all of it


for _ in range(THREADS):
    threading.Thread(target=run, daemon=True).start()
threading.Event().wait()
