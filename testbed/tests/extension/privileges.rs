//! Each role tries each thing that it must not.

mod code_in_the_health;
mod code_of_the_table;
mod code_of_the_table_and_its_session;
mod drops;
mod names;
mod rights_of_the_owner;
mod rights_of_the_writer;
mod settings_of_the_session;
mod settings_of_users;
mod what_a_session_keeps;
mod what_can_run_code;
mod what_code_of_the_table_leaves;
mod what_code_of_the_table_sees;
mod what_is_kept_whatever_fails;
mod which_sessions_are_refused;

use crate::common::{cluster, count, message};
use testbed::cluster::Cluster;
use tokio_postgres::Client;

const INGEST: &str = "SELECT * FROM pgmask.ingest_login_batch('{a}', '{\"{\\\"user_id\\\":1}\"}', ARRAY['2026-11-20'::timestamptz], '{1}')";

/// The views of sql/03_analyst_views.sql.
const VIEWS: [&str; 8] = [
    "shared_ips",
    "shared_devices",
    "users_with_many_ips",
    "users_with_many_devices",
    "logins_by_day",
    "version_adoption",
    "duplicate_events",
    "new_devices_by_day",
];

/// A role of this test's own, in a group.
async fn member(admin: &Client, name: &str, group: &str) {
    let sql = format!("DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN; GRANT {group} TO {name}");
    admin.batch_execute(&sql).await.unwrap();
}

async fn is_refused(client: &Client, sql: &str) {
    let Err(error) = client.batch_execute(sql).await else { panic!("allowed: {sql}") };
    let text = message(&error);
    assert!(text.starts_with("42501 "), "{sql}: {text}");
}

#[tokio::test]
async fn nobody_gets_at_tables_keys_or_internals() {
    let cluster = cluster().await;
    let admin = cluster.database("privileges").await.unwrap();
    admin.batch_execute(INGEST).await.unwrap();
    for group in ["pgmask_ingester", "pgmask_analyst", "pgmask_recoverer"] {
        let name = format!("try_{group}");
        member(&admin, &name, group).await;
        let client = cluster.connect_as(&name, "privileges").await.unwrap();
        // Settings are known once the library is loaded; whoever may call no function can't load it.
        let settings: &[&str] = match group {
            "pgmask_recoverer" => &[],
            _ => &[
                "SHOW pgmask.keyring_file",
                "SELECT current_setting('pgmask.keyring_file')",
                "SELECT current_setting('pgmask.login_table')",
                "SET pgmask.keyring_file = 'mine.json'",
                "SET pgmask.login_table = 'public.mine'",
                "SELECT set_config('pgmask.login_table', 'public.mine', false)",
                "SET pgmask.ledger_days = 1",
                "SET pgmask.vault = on",
                "SET pgmask.recover_limit = -1",
                "SET pgmask.guess_limit = -1",
            ],
        };
        match group {
            "pgmask_ingester" => {
                client.batch_execute("SELECT ingest_login('{\"user_id\": 1}')").await.unwrap();
            }
            "pgmask_analyst" => client.batch_execute("SELECT mask_pii('x')").await.unwrap(),
            _ => {}
        }
        let others = [
            "SELECT * FROM pgmask.ledger",
            "SELECT * FROM pgmask.ledger_7",
            "DELETE FROM pgmask.ledger_slot",
            "SELECT * FROM pgmask.quarantine",
            "SELECT * FROM pgmask.quarantine_summary",
            "SELECT * FROM pgmask.key_check",
            "SELECT * FROM pgmask.vault",
            "SELECT token FROM pgmask.vault",
            "DELETE FROM pgmask.vault",
            "SELECT * FROM pgmask.audit",
            "DELETE FROM pgmask.audit",
            "SELECT * FROM pgmask.audit_end FOR UPDATE",
            "SELECT * FROM pgmask.verify_audit()",
            "SELECT * FROM pgmask.remask_vault(0, 0)",
            "CALL pgmask.remask('pgmask.vault')",
            "INSERT INTO pgmask.key_check VALUES (1, 'x', now())",
            "DELETE FROM pgmask.ledger",
            "SELECT pgmask.key_status()",
            "INSERT INTO pgmask.key_check_own VALUES (1, 'x', now())",
            "SELECT * FROM pgmask.key_check_restored",
            "INSERT INTO user_logins (user_id) VALUES ('forged')",
            "DELETE FROM user_logins",
            "SELECT pg_read_file('pg_mask.keyring')",
            "SELECT pg_read_binary_file(current_setting('data_directory') || '/pg_mask.keyring')",
            "SELECT lo_import('pg_mask.keyring')",
            "COPY (SELECT 1) TO PROGRAM 'cat'",
            "ALTER SYSTEM SET pgmask.keyring_file = 'mine.json'",
            "ALTER EXTENSION pg_mask UPDATE",
            "DROP EXTENSION pg_mask",
            "ALTER FUNCTION ingest_login(jsonb, date) SECURITY INVOKER",
            "CREATE TABLE pgmask.mine ()",
            "SET ROLE postgres",
        ];
        for sql in others.iter().chain(settings) {
            is_refused(&client, sql).await;
        }
        let shown =
            "SELECT count(*) FROM pg_settings WHERE name IN ('pgmask.keyring_file', 'pgmask.login_table')";
        assert_eq!(count(&client, shown).await, 0, "{group} sees paths");
    }
}

#[tokio::test]
async fn each_role_has_its_own_rights_and_no_other() {
    let cluster = cluster().await;
    let admin = cluster.database("own_rights").await.unwrap();
    for group in ["pgmask_ingester", "pgmask_analyst", "pgmask_recoverer", "pgmask_operator"] {
        member(&admin, &format!("own_{group}"), group).await;
    }
    let ingester = cluster.connect_as("own_pgmask_ingester", "own_rights").await.unwrap();
    ingester.batch_execute(INGEST).await.unwrap();
    ingester.batch_execute("SELECT ingest_login('{\"user_id\": 2}')").await.unwrap();
    ingester.batch_execute("SELECT pgmask.maintain()").await.unwrap();
    for sql in [
        "SELECT mask_pii('x')",
        "SELECT mask_pii('::1'::inet)",
        "SELECT mask_pii('x', 'y')",
        "SELECT * FROM user_logins",
    ] {
        is_refused(&ingester, sql).await;
    }
    let analyst = cluster.connect_as("own_pgmask_analyst", "own_rights").await.unwrap();
    assert_eq!(count(&analyst, "SELECT count(mask_pii(user_id)) FROM user_logins").await, 2);
    analyst.batch_execute("SELECT app_version_text(1)").await.unwrap();
    is_refused(&analyst, "CREATE VIEW logins.mine AS SELECT 1").await;
    for sql in [INGEST, "SELECT ingest_login('{\"user_id\": 2}')", "SELECT pgmask.maintain()"] {
        is_refused(&analyst, sql).await;
    }
    let recoverer = cluster.connect_as("own_pgmask_recoverer", "own_rights").await.unwrap();
    for sql in
        [INGEST, "SELECT mask_pii('x')", "SELECT * FROM user_logins", "SELECT pgmask.replay_quarantine()"]
    {
        is_refused(&recoverer, sql).await;
    }
    let operator = cluster.connect_as("own_pgmask_operator", "own_rights").await.unwrap();
    operator
        .batch_execute("SELECT pgmask.maintain(); SELECT pgmask.replay_quarantine(); SELECT pgmask.key_status(); TABLE pgmask.quarantine_summary")
        .await
        .unwrap();
    for sql in [
        INGEST,
        "SELECT mask_pii('x')",
        "SELECT * FROM user_logins",
        "SELECT * FROM pgmask.quarantine",
        "CALL pgmask.unseal_quarantine(1, 'x')",
        "SELECT pgmask.audit_unseal(1, 'x')",
        "SELECT pgmask.unsealed(1)",
        "SELECT * FROM pgmask.vault",
        "CALL pgmask.recover_pii('m1_00', 'x')",
        "CALL pgmask.forget('m1_00', 'x')",
    ] {
        is_refused(&operator, sql).await;
    }
    for view in VIEWS {
        analyst.batch_execute(&format!("TABLE logins.{view}")).await.unwrap();
        for other in [&ingester, &recoverer, &operator] {
            is_refused(other, &format!("TABLE logins.{view}")).await;
        }
    }
}

/// Who may call what and touch which table, all of it: whatever is added to the extension has to be added here.
#[tokio::test]
async fn every_right_to_every_object_is_meant() {
    const MASKING: &[&str] =
        &["app_version_text", "current_mask", "mask_generation", "mask_network", "mask_pii"];
    let client = cluster().await.database("all_rights").await.unwrap();
    let may = async |role: &str, sql: &str| {
        let rows = client.query(sql, &[&role]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    let routines = "SELECT DISTINCT p.proname::text FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e'
        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_mask'
        WHERE has_function_privilege($1, p.oid, 'EXECUTE') ORDER BY 1";
    let relations = "SELECT c.relname || ' ' || string_agg(DISTINCT right_to, ' ' ORDER BY right_to)
        FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.deptype = 'e'
        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_mask',
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) right_to
        WHERE c.relkind IN ('r', 'p', 'v', 'S') AND CASE WHEN c.relkind = 'S'
            THEN has_sequence_privilege($1, c.oid, 'USAGE, SELECT, UPDATE')
            ELSE has_table_privilege($1, c.oid, right_to) OR right_to IN ('SELECT', 'INSERT', 'UPDATE') AND has_any_column_privilege($1, c.oid, right_to) END
        GROUP BY 1, c.relname ORDER BY 1";
    let relations = &relations.replace("GROUP BY 1, c.relname", "GROUP BY c.relname");
    for (role, expected, tables) in [
        ("pgmask_writer", &[] as &[&str], &[] as &[&str]),
        ("pgmask_unlimited", &[], &[]),
        (
            "pgmask_ingester",
            &[
                "ingest_login",
                "ingest_login_batch",
                "ingest_login_batch_bytes",
                "last_quarantined",
                "maintain",
            ],
            &[],
        ),
        ("pgmask_analyst", MASKING, &[]),
        ("pgmask_nobody", &[], &[]),
        ("pgmask_refresher", MASKING, &[]),
        (
            "pgmask_operator",
            &[
                "health_items",
                "key_status",
                "maintain",
                "remask",
                "remask_begins",
                "remask_blocks",
                "remask_left",
                "remask_parts",
                "remask_progress",
                "remask_vault",
                "replay_quarantine",
                "reseal_quarantine",
                "wait_for_writers",
            ],
            &["health SELECT", "quarantine_summary SELECT"],
        ),
        (
            "pgmask_recoverer",
            &[
                "audit_asked",
                "audit_forget",
                "audit_recover",
                "audit_unseal",
                "forget",
                "forgotten",
                "recover_pii",
                "recovered",
                "unseal_quarantine",
                "unsealed",
            ],
            &["quarantine SELECT"],
        ),
        ("pg_monitor", &["health_items"], &["health SELECT"]),
    ] {
        assert_eq!(may(role, routines).await, expected, "{role}");
        assert_eq!(may(role, relations).await, tables, "{role}");
    }
    let forwarder = "pgmask_forwarder";
    assert_eq!(may(forwarder, routines).await, may("pgmask_ingester", routines).await);
    assert_eq!(may(forwarder, relations).await, [""; 0]);
}

/// Default privileges are for people's own tables and functions.
#[tokio::test]
async fn default_privileges_give_nobody_a_right_to_what_is_pg_masks() {
    let cluster = Cluster::start(&[]).await.unwrap();
    cluster.connect("postgres").await.unwrap().batch_execute("CREATE DATABASE defaults").await.unwrap();
    let admin = cluster.connect("defaults").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE mallory LOGIN; CREATE ROLE \"Read Only\"; GRANT \"Read Only\" TO mallory;
             ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO \"Read Only\";
             ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
             ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO mallory;
             ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO mallory;
             ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO mallory",
        )
        .await
        .unwrap();
    cluster.apply_sql("defaults").unwrap();
    cluster.apply_file("defaults", "05_dashboards.sql").unwrap();
    admin.batch_execute("GRANT USAGE ON SCHEMA pgmask TO mallory").await.unwrap();
    let mallory = cluster.connect_as("mallory", "defaults").await.unwrap();
    for sql in [
        "TABLE pgmask.quarantine",
        "TABLE pgmask.ledger",
        "TABLE pgmask.ledger_3",
        "TABLE pgmask.key_check",
        "DELETE FROM pgmask.audit",
        "TABLE pgmask.health",
        "SELECT nextval('pgmask.quarantine_id_seq')",
        "CREATE TABLE pgmask.mine ()",
        "SELECT pgmask.mask_pii('x')",
        "SELECT public.mask_pii('x')",
        "SELECT pgmask.key_status()",
        "SELECT public.ingest_login('{\"user_id\": 1}')",
        "CALL pgmask.unseal_quarantine(1, 'mine')",
        "SELECT pgmask.rotate_key()",
        "CREATE VIEW logins.mine AS SELECT 1",
    ] {
        is_refused(&mallory, sql).await;
    }
    admin.batch_execute(INGEST).await.unwrap();
    admin.batch_execute("GRANT pg_monitor TO mallory").await.unwrap();
    mallory.batch_execute("TABLE pgmask.health").await.unwrap();
}

/// Triggers that wait for the commit are the caller's, and must not run as anybody else before it.
#[tokio::test]
async fn what_waits_for_the_commit_runs_as_the_caller() {
    let cluster = cluster().await;
    let admin = cluster.database("deferred_trap").await.unwrap();
    admin
        .batch_execute("ALTER TABLE user_logins ADD UNIQUE (user_id, create_date) DEFERRABLE")
        .await
        .unwrap();
    member(&admin, "defers_trap", "pgmask_ingester").await;
    let client = cluster.connect_as("defers_trap", "deferred_trap").await.unwrap();
    client
        .batch_execute(
            "CREATE TEMP TABLE t (who text);
             CREATE FUNCTION pg_temp.climb() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF current_user <> 'defers_trap' THEN RAISE EXCEPTION 'I am %', current_user; END IF; RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER climb AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION pg_temp.climb();
             BEGIN; INSERT INTO t VALUES ('x');",
        )
        .await
        .unwrap();
    client.batch_execute("SELECT public.ingest_login('{\"user_id\": 1}')").await.unwrap();
    client.batch_execute("COMMIT").await.unwrap();
}
