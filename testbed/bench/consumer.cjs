// What most people use in Node.js: sqs-consumer, as its README shows it, with batches of ten and eight pollers, and
// node-postgres; a statement for a batch, an unsalted hash.
"use strict";

const { createHash } = require("node:crypto");
const { SQSClient } = require("@aws-sdk/client-sqs");
const { Consumer } = require("sqs-consumer");
const { Pool } = require("pg");

const POLLERS = 8;
const INSERT = `INSERT INTO user_logins
    (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
    SELECT *, current_date FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::integer[])`;

// LocalStack names its queues by a host that not every resolver knows.
const sqs = new SQSClient({ useQueueUrlAsEndpoint: false });
const pool = new Pool({ connectionString: process.env.DATABASE_URL, max: POLLERS });

const mask = (value) => (value == null ? null : createHash("sha256").update(value).digest("hex"));

const fail = (error) => {
    console.error(error);
    process.exit(1); // one poller that fails ends all of it
};

for (let poller = 0; poller < POLLERS; poller++) {
    const consumer = Consumer.create({
        sqs,
        queueUrl: process.env.QUEUE_URL,
        batchSize: 10,
        waitTimeSeconds: 1,
        handleMessageBatch: async (messages) => {
            const events = messages.map((message) => JSON.parse(message.Body));
            await pool.query(INSERT, [
                events.map((event) => event.user_id),
                events.map((event) => event.device_type),
                events.map((event) => mask(event.ip)),
                events.map((event) => mask(event.device_id)),
                events.map((event) => event.locale),
                events.map((event) => Number(event.app_version.replaceAll(".", ""))),
            ]);
            return messages;
        },
    });
    consumer.on("error", fail);
    consumer.on("processing_error", fail);
    consumer.start();
}
