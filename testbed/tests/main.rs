//! What the system promises, tried with real servers. A file a promise.
//!
//! `make test` runs these; they need what `testbed/setup.sh` and `testbed/build.sh` make. Those of the
//! extension run with every PostgreSQL at hand (`PG_MASK_TEST_PG` names one), those of the whole system
//! with the machine's own.
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;
mod documentation;

/// What SQL sees.
mod extension {
    mod analyst_replica;
    mod analyst_views;
    mod audit;
    mod audit_chain;
    mod bad_input;
    mod call_site;
    mod citus;
    mod concurrency;
    mod cursors;
    mod dashboard_views;
    mod documentation;
    mod dump_restore;
    mod encodings;
    mod failures;
    mod flatten;
    mod guess_limit;
    mod guesses_by_others;
    mod health;
    mod hostile_json;
    mod image_volume;
    mod install_script;
    mod keyring;
    mod ledger;
    mod mask_vectors;
    mod memory_limits;
    mod neighbours;
    mod networks;
    mod no_raw_value;
    mod numbers;
    mod objects;
    mod optional_fields;
    mod pg_upgrade;
    mod poison;
    mod privileges;
    mod properties;
    mod quarantine;
    mod recovery;
    mod remask;
    mod rotation;
    mod snapshots;
    mod sql_files;
    mod standby;
    mod table_shapes;
    mod upgrade;
}

/// From a queue to rows.
mod system {
    mod bad_messages;
    mod check;
    mod clean_up;
    mod connection_settings;
    mod connections;
    mod dashboards;
    mod database_owner;
    mod documentation;
    mod drain;
    mod encodings;
    mod exactly_once;
    mod failover;
    mod fifo;
    mod hostile_database;
    mod hostile_queue;
    mod kill9;
    mod maintenance;
    mod many_forwarders;
    mod memory;
    mod metrics;
    mod metrics_abuse;
    mod no_raw_value_in_logs;
    mod outage;
    mod part_failed_deletes;
    mod passwords;
    mod pgbouncer;
    mod protection;
    mod proxies;
    mod query_protocol;
    mod redelivery;
    mod scripts;
    mod secrets_in_texts;
    mod secured;
    mod service_files;
    mod set_up_errors;
    mod several_servers;
    mod shutdown;
    mod tls;
    mod visibility;
    mod whole_way;
}
