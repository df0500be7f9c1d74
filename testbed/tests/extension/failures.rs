//! A batch that fails as a whole leaves nothing behind: no row, no claim, no right, no broken session.

use crate::common::{cluster, commits_wait, count, ingest, message, nobody_waits};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;

const BATCH: &str = "pgmask.ingest_login_batch('{a, b}', '{\"{\\\"user_id\\\":1}\", nonsense}', ARRAY[now(), now()], '{1, 1}')";

#[tokio::test]
async fn an_error_of_the_server_undoes_it_all() {
    let cluster = cluster().await;
    let admin = cluster.database("undoes_all").await.unwrap();
    admin
        .batch_execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'as if' USING ERRCODE = 'disk_full'; END $$;
             CREATE TRIGGER fail BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fail();
             DROP ROLE IF EXISTS sees_failure; CREATE ROLE sees_failure LOGIN IN ROLE pgmask_ingester;",
        )
        .await
        .unwrap();
    let client = cluster.connect_as("sees_failure", "undoes_all").await.unwrap();
    let error = client.query(&format!("SELECT * FROM {BATCH}"), &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "53100");
    // The session goes on, and whoever handles the error is who they were.
    client
        .batch_execute(&format!(
            "DO $$ BEGIN PERFORM * FROM {BATCH}; EXCEPTION WHEN disk_full THEN
                 IF current_user <> 'sees_failure' THEN RAISE 'now I am %', current_user; END IF; END $$"
        ))
        .await
        .unwrap();
    for table in ["user_logins", "pgmask.ledger", "pgmask.quarantine"] {
        assert_eq!(count(&admin, &format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
}

/// The forwarder asks so at its start, and `check` does: it must not find out with the first message.
#[tokio::test]
async fn an_empty_batch_finds_what_the_writer_lacks() {
    let admin = cluster().await.database("writer_lacks").await.unwrap();
    let empty = "SELECT * FROM pgmask.ingest_login_batch('{}', '{}', '{}', '{}')";
    for (missing, there, saying) in [
        (
            "REVOKE INSERT ON user_logins FROM pgmask_writer",
            "GRANT INSERT ON user_logins TO pgmask_writer",
            "INSERT ON TABLE public.user_logins GRANT that",
        ),
        (
            "REVOKE INSERT ON user_logins FROM pgmask_writer; GRANT INSERT (user_id, device_type, masked_ip, masked_device_id, locale, create_date) ON user_logins TO pgmask_writer",
            "GRANT INSERT (app_version) ON user_logins TO pgmask_writer",
            "INSERT ON TABLE public.user_logins GRANT that",
        ),
        (
            "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
            "GRANT USAGE ON SCHEMA public TO PUBLIC",
            "USAGE ON SCHEMA public GRANT that",
        ),
        (
            "CREATE SEQUENCE numbers; ALTER TABLE user_logins ADD n bigint DEFAULT nextval('numbers')",
            "GRANT UPDATE ON SEQUENCE numbers TO pgmask_writer",
            "USAGE ON SEQUENCE public.numbers GRANT that",
        ),
        (
            "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY reads ON user_logins FOR SELECT USING (true)",
            "CREATE POLICY writes ON user_logins FOR INSERT TO pgmask_writer WITH CHECK (true)",
            "row level security and no policy",
        ),
    ] {
        admin.batch_execute(empty).await.unwrap_or_else(|error| panic!("before {missing}: {error:?}"));
        admin.batch_execute(missing).await.unwrap();
        let error = message(&admin.batch_execute(empty).await.unwrap_err());
        assert!(error.starts_with("42501 ") && error.contains(saying), "{missing}: {error}");
        admin.batch_execute(there).await.unwrap();
    }
    // What is given a value needs no default.
    admin
        .batch_execute(
            "CREATE SEQUENCE users; ALTER TABLE user_logins ALTER user_id SET DEFAULT nextval('users')",
        )
        .await
        .unwrap();
    admin.batch_execute(empty).await.unwrap();
    assert_eq!(count(&admin, &format!("SELECT inserted FROM {BATCH}")).await, 1);
}

/// Every login went to the quarantine then, one by one.
#[tokio::test]
async fn an_empty_batch_finds_a_column_that_no_login_fills() {
    let admin = cluster().await.database("unfilled").await.unwrap();
    let empty = "SELECT * FROM pgmask.ingest_login_batch('{}', '{}', '{}', '{}')";
    let fill = "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.tenant := 'x'; RETURN NEW; END $$;
        CREATE TRIGGER fill BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fill()";
    for (missing, there, columns) in [
        ("ADD tenant text NOT NULL", "ALTER TABLE user_logins ALTER tenant DROP NOT NULL", "\"tenant\""),
        (
            "ADD \"A b\" int PRIMARY KEY, ADD c text NOT NULL",
            "ALTER TABLE user_logins ALTER c SET DEFAULT 'x', ALTER \"A b\" SET DEFAULT 1",
            "\"A b\", \"c\"",
        ),
        ("ADD d known", "ALTER TABLE user_logins DROP d", "\"d\""),
        ("ALTER tenant SET NOT NULL", fill, "\"tenant\""),
    ] {
        if missing.contains("known") {
            admin
                .batch_execute(
                    "CREATE DOMAIN inner_known AS text NOT NULL; CREATE DOMAIN known AS inner_known",
                )
                .await
                .unwrap();
        }
        admin.batch_execute(empty).await.unwrap_or_else(|error| panic!("before {missing}: {error:?}"));
        admin.batch_execute(&format!("ALTER TABLE user_logins {missing}")).await.unwrap();
        let error = message(&admin.batch_execute(empty).await.unwrap_err());
        let saying = format!(
            "42611 logins have no value for {columns} of table \"public.user_logins\", and that takes no NULL"
        );
        assert!(error.starts_with(&saying) && error.contains("SET DEFAULT"), "{missing}: {error}");
        admin.batch_execute(there).await.unwrap();
    }
    // What fills itself needs nothing.
    admin
        .batch_execute(
            "ALTER TABLE user_logins DROP \"A b\", ADD n int GENERATED ALWAYS AS IDENTITY, ADD at timestamptz NOT NULL DEFAULT now(),
                 ADD kind text NOT NULL GENERATED ALWAYS AS (coalesce(locale, 'none')) STORED",
        )
        .await
        .unwrap();
    admin.batch_execute(empty).await.unwrap();
    assert_eq!(count(&admin, &format!("SELECT inserted FROM {BATCH}")).await, 1);
}

#[tokio::test]
async fn a_statement_timeout_leaves_the_session_as_it_was() {
    let cluster = cluster().await;
    let admin = cluster.database("times_out").await.unwrap();
    admin
        .batch_execute(
            "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(3600); RETURN NEW; END $$;
             CREATE TRIGGER hang BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION hang();
             DROP ROLE IF EXISTS times_out; CREATE ROLE times_out LOGIN IN ROLE pgmask_ingester;",
        )
        .await
        .unwrap();
    let client = cluster.connect_as("times_out", "times_out").await.unwrap();
    client.batch_execute("SET statement_timeout = '200ms'").await.unwrap();
    let error = client.query(&format!("SELECT * FROM {BATCH}"), &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "57014");
    let who: String = client.query_one("SELECT current_user::text", &[]).await.unwrap().get(0);
    assert_eq!(who, "times_out");
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.ledger").await, 0);
}

#[tokio::test]
async fn deferred_constraints_are_checked_row_by_row() {
    let cluster = cluster().await;
    let admin = cluster.database("deferred").await.unwrap();
    admin
        .batch_execute(
            "DROP ROLE IF EXISTS owns_deferred; CREATE ROLE owns_deferred;
             CREATE TABLE known_users (user_id varchar(128) PRIMARY KEY); INSERT INTO known_users VALUES ('1'), ('2');
             ALTER TABLE known_users OWNER TO owns_deferred; ALTER TABLE user_logins OWNER TO owns_deferred;
             ALTER TABLE user_logins ADD UNIQUE (user_id) DEFERRABLE INITIALLY DEFERRED,
                 ADD FOREIGN KEY (user_id) REFERENCES known_users DEFERRABLE INITIALLY DEFERRED",
        )
        .await
        .unwrap();
    let sql = "SELECT inserted, quarantined FROM pgmask.ingest_login_batch('{a, b, c, d}', ARRAY['{\"user_id\":1}',
        '{\"user_id\":1}', '{\"user_id\":2}', '{\"user_id\":3}'], array_fill(now(), ARRAY[4]), '{1, 1, 1, 1}')";
    let row = admin.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 2));
    let reasons = "SELECT count(DISTINCT reason) FROM pgmask.quarantine WHERE reason IN ('rejected:23505', 'rejected:23503')";
    assert_eq!(count(&admin, reasons).await, 2);
}

/// A prepared transaction keeps its locks until somebody ends it: `maintain()` and DDL would wait for it.
#[tokio::test]
async fn a_batch_can_not_be_prepared() {
    let cluster = Cluster::start(&["max_prepared_transactions = 5"]).await.unwrap();
    let admin = cluster.database("prepares").await.unwrap();
    for (n, work) in [
        &format!("SELECT * FROM {BATCH}")[..],
        "SELECT pgmask.ingest_login('{\"user_id\": 1}')",
        "SELECT pgmask.replay_quarantine()",
        "SELECT pgmask.maintain()",
        "SELECT FROM pgmask.health",
        "SELECT pgmask.remask_left('user_logins'::regclass, NULL, NULL)",
        "SELECT pgmask.verify_audit()",
        "SELECT pgmask.rotate_key()",
        "SELECT pgmask.refresh_dashboards()",
        &format!("SAVEPOINT s; SELECT * FROM {BATCH}; ROLLBACK TO s"),
    ]
    .into_iter()
    .enumerate()
    {
        admin.batch_execute(&format!("BEGIN; {work}")).await.unwrap();
        let error =
            message(&admin.batch_execute(&format!("PREPARE TRANSACTION 'p{n}'")).await.expect_err(work));
        assert!(
            error.starts_with("0A000 a transaction in which pg_mask took messages in"),
            "{work}: {error}"
        );
        admin.batch_execute("ROLLBACK").await.unwrap();
    }
    assert_eq!(count(&admin, "SELECT count(*) FROM pg_prepared_xacts").await, 0);
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.ledger").await, 0);
    // Others may, in the same session.
    admin.batch_execute("BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'other'").await.unwrap();
    admin.batch_execute("COMMIT PREPARED 'other'").await.unwrap();
}

/// The table is exchanged for another while a batch waits for it: the row goes to the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_takes_the_name_meanwhile_gets_the_row() {
    let cluster = cluster().await;
    let admin = cluster.database("exchanged").await.unwrap();
    admin
        .batch_execute(
            "CREATE TABLE user_logins_new (LIKE user_logins); GRANT INSERT ON user_logins_new TO pgmask_writer; BEGIN;
             ALTER TABLE user_logins RENAME TO user_logins_old; ALTER TABLE user_logins_new RENAME TO user_logins",
        )
        .await
        .unwrap();
    let ingesting = cluster.connect("exchanged").await.unwrap();
    let watching = cluster.connect("exchanged").await.unwrap();
    let ingest = tokio::spawn(async move {
        crate::common::try_ingest(&ingesting, &[("a", r#"{"user_id":"u"}"#)], "2026-11-20").await
    });
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'exchanged' AND wait_event_type = 'Lock'";
    let waits = || async { count(&watching, waiting).await == 1 };
    testbed::guardian::wait_until("ingest waits", waits).await.unwrap();
    admin.batch_execute("COMMIT").await.unwrap();
    assert_eq!(ingest.await.unwrap().unwrap(), [1, 0, 0]);
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, 1);
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins_old").await, 0);
}

/// Who is told that a batch is committed deletes its messages. A cancel ends PostgreSQL's wait for a synchronous standby, and the
/// batch was told of as if it were there; and messages that were known already were not waited for at all.
#[tokio::test]
async fn nothing_is_told_before_the_standby_has_it() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("waits_for_standby").await.unwrap();
    let waits =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'pgmask_forwarder'";
    let cancel = waits.replace("count(*)", "count(pg_cancel_backend(pid))");
    for counts in [[1, 0, 0], [0, 1, 0]] {
        let client = cluster.connect_as("pgmask_forwarder", "waits_for_standby").await.unwrap();
        commits_wait(&cluster, "waits_for_standby", &admin).await;
        let taken_in = tokio::spawn(async move { ingest(&client, &[("a", "{\"user_id\": \"u\"}")]).await });
        for _ in 0..5 {
            let waits = || async { taken_in.is_finished() || count(&admin, waits).await == 1 };
            wait_until("it waits", waits).await.unwrap();
            assert!(!taken_in.is_finished(), "{counts:?}");
            count(&admin, &cancel).await;
        }
        nobody_waits(&admin).await;
        assert_eq!(taken_in.await.unwrap(), counts);
    }
}
