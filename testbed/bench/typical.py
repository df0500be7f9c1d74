"""What most predecessors do: one thread, a row and a delete at a time, an unsalted hash."""

import hashlib
import json
import os

import boto3
import psycopg2


def mask(value):
    return None if value is None else hashlib.sha256(value.encode()).hexdigest()


sqs = boto3.client("sqs")
queue = os.environ["QUEUE_URL"]
database = psycopg2.connect(os.environ["DATABASE_URL"])
cursor = database.cursor()
while True:
    for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", []):
        event = json.loads(message["Body"])
        cursor.execute(
            "INSERT INTO user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)"
            " VALUES (%s, %s, %s, %s, %s, %s, current_date)",
            (
                event["user_id"],
                event["device_type"],
                mask(event["ip"]),
                mask(event["device_id"]),
                event["locale"],
                int(event["app_version"].replace(".", "")),
            ),
        )
        database.commit()
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
