//! `remask` and `pgmask.health` read and write with the rights of a table's owner, and nobody else's code has these then.

mod code;
mod partitions;

use super::INGEST;
use crate::common::{count, message, texts};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;
use tokio_postgres::Client;

/// How often mallory's code ran.
const RAN: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM mallory.ran";

const IS_SUPERUSER: &str = "SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND rolsuper";

/// A database in which mallory has a trigger function and a function for a view, with which whoever runs them makes
/// mallory a superuser if that is possible; and what mallory is connected with.
async fn mallory(cluster: &Cluster, database: &str, roles: &str) -> (Client, Client) {
    let admin = cluster.database(database).await.unwrap();
    admin
        .batch_execute(&format!(
            "DO $$ BEGIN CREATE ROLE mallory LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             GRANT {roles} TO mallory; CREATE SCHEMA mallory AUTHORIZATION mallory; GRANT USAGE ON SCHEMA mallory TO PUBLIC;
             INSERT INTO user_logins (user_id, masked_ip) VALUES ('u', repeat('0', 64))",
        ))
        .await
        .unwrap();
    let mallory = cluster.connect_as("mallory", database).await.unwrap();
    mallory
        .batch_execute(
            "CREATE SEQUENCE mallory.ran; GRANT USAGE ON SEQUENCE mallory.ran TO PUBLIC;
             CREATE FUNCTION mallory.climb() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM nextval('mallory.ran');
                 EXECUTE 'ALTER ROLE mallory SUPERUSER'; RETURN true;
             EXCEPTION WHEN insufficient_privilege OR read_only_sql_transaction THEN RETURN true; END $$;
             CREATE FUNCTION mallory.climbs() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM mallory.climb(); RETURN NEW; END $$;
             CREATE FUNCTION mallory.quiet(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM mallory.climb(); RETURN $1; END $$",
        )
        .await
        .unwrap();
    (admin, mallory)
}

/// Who calls may have deferred triggers wait in the transaction.
#[tokio::test]
async fn a_trigger_that_waits_does_not_run_with_them() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "waits_for_remask", "pgmask_operator").await;
    mallory
        .batch_execute(
            "CREATE TABLE mallory.own (x int);
             CREATE CONSTRAINT TRIGGER t AFTER INSERT ON mallory.own DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION mallory.climbs();
             BEGIN; INSERT INTO mallory.own VALUES (1)",
        )
        .await
        .unwrap();
    let blocks = "SELECT * FROM pgmask.remask_blocks('public.user_logins'::regclass, NULL, NULL, 0, 1)";
    let error = message(&mallory.batch_execute(blocks).await.unwrap_err());
    assert!(error.starts_with("25001 "), "{error}");
    mallory.batch_execute("ROLLBACK").await.unwrap();
    mallory.batch_execute("CALL pgmask.remask('public.user_logins')").await.unwrap();
    assert_eq!(count(&admin, IS_SUPERUSER).await, 0);
}

/// An owner's trigger function finds the operator's temporary table before the one that it means. It gains nothing.
#[tokio::test]
async fn temporary_objects_of_the_operators_mislead_nobody_to_more() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "misled", "pgmask_operator").await;
    admin
        .batch_execute(
            "CREATE TABLE updates (n int); GRANT INSERT ON updates TO pgmask_writer;
             CREATE FUNCTION honest() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS
                 $$ BEGIN INSERT INTO updates VALUES (1); RETURN NEW; END $$;
             CREATE TRIGGER t BEFORE UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION honest()",
        )
        .await
        .unwrap();
    mallory
        .batch_execute(
            "CREATE TEMP TABLE updates (n int CHECK (mallory.climb())); GRANT INSERT ON updates TO PUBLIC",
        )
        .await
        .unwrap();
    let refused =
        message(&mallory.batch_execute("CALL pgmask.remask('public.user_logins')").await.unwrap_err());
    assert!(refused.starts_with("42501 this session has made updates for itself"), "{refused}");
    assert_eq!((count(&admin, RAN).await, count(&admin, IS_SUPERUSER).await), (0, 0));
}

/// A transaction that reads as of its beginning did not see what was added since.
#[tokio::test]
async fn what_was_added_since_the_transaction_began_is_seen() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "as_it_was", "pgmask_operator").await;
    admin
        .batch_execute(
            "CREATE TABLE legacy (masked_ip text); INSERT INTO legacy VALUES (repeat('0', 64)); GRANT TRIGGER ON legacy TO mallory;
             CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere; GRANT USAGE ON FOREIGN SERVER nowhere TO mallory;
             DROP TABLE user_logins CASCADE; GRANT CREATE ON SCHEMA public TO mallory;
             CREATE TABLE user_logins (user_id text, device_type text, masked_ip text, masked_device_id text, locale text,
                 app_version integer, create_date date) PARTITION BY LIST (masked_ip);
             CREATE TABLE ordinary PARTITION OF user_logins DEFAULT; GRANT INSERT ON user_logins TO pgmask_writer;
             CREATE TABLE below PARTITION OF user_logins FOR VALUES IN ('x') PARTITION BY LIST (user_id); ALTER TABLE below OWNER TO mallory",
        )
        .await
        .unwrap();
    admin.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    admin.batch_execute("SELECT FROM legacy").await.unwrap();
    mallory
        .batch_execute(
            "CREATE TRIGGER t BEFORE UPDATE ON legacy FOR EACH ROW EXECUTE FUNCTION mallory.climbs();
             CREATE FOREIGN TABLE public.elsewhere PARTITION OF below FOR VALUES IN ('y') SERVER nowhere",
        )
        .await
        .unwrap();
    for (call, says) in [
        (
            "SELECT pgmask.remask_blocks('ordinary'::regclass, NULL, NULL, 0, 1)",
            "42809 partition public.elsewhere",
        ),
        (INGEST, "42809 partition public.elsewhere of table"),
    ] {
        admin.batch_execute("SAVEPOINT s").await.unwrap();
        let error = message(&admin.batch_execute(call).await.expect_err(call));
        assert!(error.starts_with(says), "{call}: {error}");
        admin.batch_execute("ROLLBACK TO s").await.unwrap();
    }
    admin.batch_execute("SELECT pgmask.remask_blocks('legacy'::regclass, NULL, NULL, 0, 1)").await.unwrap();
    assert_eq!(count(&admin, RAN).await, 1);
    admin.batch_execute("ROLLBACK").await.unwrap();
    // One that is about to be detached is still there for who began before.
    admin.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE ONLY below IN ACCESS SHARE MODE; SELECT FROM legacy").await.unwrap();
    mallory.batch_execute("SET statement_timeout = '500ms'").await.unwrap();
    let waits = mallory.batch_execute("ALTER TABLE below DETACH PARTITION elsewhere CONCURRENTLY").await;
    assert!(message(&waits.unwrap_err()).starts_with("57014 "));
    assert_eq!(
        count(&admin, "SELECT count(*) FROM pg_inherits WHERE inhdetachpending").await,
        0,
        "not as it sees it"
    );
    for call in ["SELECT pgmask.remask_blocks('ordinary'::regclass, NULL, NULL, 0, 1)", INGEST] {
        admin.batch_execute("SAVEPOINT s").await.unwrap();
        let error = message(&admin.batch_execute(call).await.expect_err(call));
        assert!(error.starts_with("42809 partition public.elsewhere"), "{call}: {error}");
        admin.batch_execute("ROLLBACK TO s").await.unwrap();
    }
    admin.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(count(&admin, IS_SUPERUSER).await, 0);
}

/// Whoever may make an operator in a schema of the caller's search path makes one that fits better than PostgreSQL's own:
/// `smallint & integer` made its owner a superuser.
#[tokio::test]
async fn operators_of_others_are_not_called() {
    let cluster =
        Cluster::start(&["shared_preload_libraries = 'pg_mask'", "pgmask.vault = on"]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "operators", "pgmask_operator").await;
    admin
        .batch_execute(
            "GRANT CREATE, USAGE ON SCHEMA public TO mallory; CREATE ROLE harmless; GRANT harmless TO pgmask_writer;
             CREATE TABLE legacy (LIKE user_logins); INSERT INTO legacy (masked_ip) VALUES (repeat('0', 64));
             CREATE FUNCTION honest() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER t BEFORE UPDATE ON legacy FOR EACH ROW EXECUTE FUNCTION honest()",
        )
        .await
        .unwrap();
    // One for each pair of types that PostgreSQL has none for.
    mallory
        .batch_execute(
            "SET search_path = public, pg_catalog;
             DO $$ DECLARE one record; BEGIN
                 FOR one IN
                     SELECT o.name, l.type AS l, r.type AS r,
                            CASE WHEN o.name IN ('&', '|', '+', '-', '<<') THEN 'integer' WHEN o.name = '||' THEN 'text' ELSE 'boolean' END AS gives
                     FROM unnest(ARRAY['=', '<>', '<', '>', '<=', '>=', '&', '|', '+', '-', '<<', '||', '~']) AS o(name),
                          unnest(ARRAY['smallint', 'integer', 'bigint', 'oid', 'regclass', 'regrole', 'regtype', 'text', 'varchar', 'name', '\"char\"', 'boolean', 'unknown', 'date', 'timestamptz', 'uuid']) AS l(type),
                          unnest(ARRAY['smallint', 'integer', 'bigint', 'oid', 'regclass', 'regrole', 'regtype', 'text', 'varchar', 'name', '\"char\"', 'boolean', 'unknown', 'date', 'timestamptz', 'uuid']) AS r(type)
                     WHERE 'unknown' NOT IN (l.type, r.type)
                       AND NOT EXISTS (SELECT FROM pg_operator AS p WHERE p.oprnamespace = 'pg_catalog'::regnamespace AND p.oprname = o.name
                                       AND p.oprleft = l.type::regtype AND p.oprright = r.type::regtype)
                 LOOP
                     EXECUTE format('CREATE OR REPLACE FUNCTION mallory.op_%s(%s, %s) RETURNS %3$s LANGUAGE sql AS $f$ SELECT NULL::%3$s WHERE mallory.climb() $f$',
                         one.gives, one.l, one.r, one.gives);
                     EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = mallory.op_%s, LEFTARG = %s, RIGHTARG = %s)', one.name, one.gives, one.l, one.r);
                 END LOOP;
             END $$;
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA mallory TO PUBLIC",
        )
        .await
        .unwrap();
    assert!(
        count(&admin, "SELECT count(*) FROM pg_operator WHERE oprnamespace = 'public'::regnamespace").await
            > 500
    );
    for call in [
        INGEST,
        "SELECT pgmask.ingest_login('{\"user_id\": 1, \"ip\": \"203.0.113.7\", \"device_id\": \"d\"}')",
        "SELECT pgmask.ingest_login_batch('{q}', '{bad}', '{NULL}', '{1}')",
        "SELECT pgmask.replay_quarantine()",
        "SELECT pgmask.reseal_quarantine(10)",
        "SELECT pgmask.maintain()",
        "SELECT * FROM pgmask.key_status()",
        "SELECT pgmask.rotate_key(), pgmask.rotate_seal_key()",
        "CALL pgmask.remask('public.legacy')",
        "CALL pgmask.remask('public.user_logins')",
        "CALL pgmask.remask('pgmask.vault')",
        "SELECT mask_pii('203.0.113.7'), mask_network('203.0.113.7'), pgmask.current_mask(repeat('0', 64))",
        "CALL pgmask.recover_pii(mask_pii('203.0.113.7'), 'a test')",
        "CALL pgmask.unseal_quarantine(1, 'a test')",
        "CALL pgmask.forget(mask_pii('203.0.113.7'), 'a test')",
        "SELECT * FROM pgmask.verify_audit()",
        "SELECT * FROM pgmask.health",
        "SELECT * FROM pgmask.quarantine_summary",
    ] {
        admin.batch_execute(call).await.unwrap_or_else(|error| panic!("{call}: {error:?}"));
        assert_eq!(count(&admin, RAN).await, 0, "{call}");
    }
    assert_eq!(count(&admin, IS_SUPERUSER).await, 0);
    mallory.batch_execute("SELECT 1::smallint & 1").await.unwrap();
    assert_eq!(count(&admin, RAN).await, 1, "the caller's own statement does call it");
}

/// Without the roles of sql/00, the owner may call, and others are told what is missing.
#[tokio::test]
async fn without_roles_the_owner_lifts_the_login_table() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "without_roles", "pgmask_operator").await;
    admin.batch_execute("DROP OWNED BY pgmask_writer; DROP ROLE pgmask_writer").await.unwrap();
    let remask = "CALL pgmask.remask('public.user_logins')";
    let error = message(&mallory.batch_execute(remask).await.unwrap_err());
    assert!(error.starts_with("42704 role pgmask_writer, which inserts logins, does not exist"), "{error}");
    admin.batch_execute(remask).await.unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins WHERE masked_ip LIKE 'm1\\_%'").await, 1);
    // Code that may be that of others does not run as the owner then, nor does looking at the table's health run it.
    admin
        .batch_execute(
            "CREATE STATISTICS kept ON mallory.quiet(user_id), masked_ip FROM user_logins; ANALYZE user_logins; ALTER ROLE mallory NOSUPERUSER;
             INSERT INTO user_logins (user_id, masked_ip) VALUES ('u', repeat('0', 64)); GRANT pg_monitor TO mallory",
        )
        .await
        .unwrap();
    mallory
        .batch_execute(
            "CREATE FUNCTION mallory.constant(int) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.climb(); RETURN ''; END $$;
             CREATE OR REPLACE FUNCTION mallory.quiet(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT lower($1) || mallory.constant(1) $$",
        )
        .await
        .unwrap();
    let error = message(&admin.batch_execute(remask).await.unwrap_err());
    assert!(error.starts_with("42704 "), "{error}");
    let health = "SELECT state FROM pgmask.health WHERE item = 'older_tokens'";
    assert_eq!(texts(&mallory, health).await, ["failed"]);
    assert_eq!(count(&admin, IS_SUPERUSER).await, 0);
}

/// The owner of the schema has another table of the name there, once the one that is meant was found.
#[tokio::test(flavor = "multi_thread")]
async fn remask_reads_no_other_table_of_the_name() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "exchanged_for_remask", "pgmask_operator").await;
    admin
        .batch_execute(
            "CREATE SCHEMA house; GRANT CREATE ON DATABASE exchanged_for_remask TO mallory;
             CREATE TABLE house.logins (masked_ip text) PARTITION BY RANGE (masked_ip);
             CREATE TABLE house.part PARTITION OF house.logins DEFAULT;
             INSERT INTO house.logins VALUES (repeat('0', 64)); ALTER SCHEMA house OWNER TO mallory",
        )
        .await
        .unwrap();
    admin.batch_execute("BEGIN; LOCK TABLE ONLY house.logins").await.unwrap();
    let reader = cluster.connect("exchanged_for_remask").await.unwrap();
    let remask = tokio::spawn(async move {
        reader
            .batch_execute("SELECT * FROM pgmask.remask_blocks('house.part'::regclass, NULL, NULL, 0, 1)")
            .await
    });
    // The part is found, and waits for the whole.
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'house.logins'::regclass";
    wait_until("remask waits", || async { count(&admin, waiting).await == 1 || remask.is_finished() })
        .await
        .unwrap();
    mallory
        .batch_execute(
            "ALTER SCHEMA house RENAME TO old; CREATE SCHEMA house; GRANT USAGE ON SCHEMA house TO PUBLIC;
             CREATE VIEW house.part AS SELECT '(0,1)'::tid AS ctid, repeat('0', 64) AS masked_ip WHERE mallory.climb(); GRANT ALL ON house.part TO PUBLIC",
        )
        .await
        .unwrap();
    admin.batch_execute("COMMIT").await.unwrap();
    let error = message(&remask.await.unwrap().unwrap_err());
    assert!(error.starts_with("40001 the table was exchanged"), "{error}");
    assert_eq!(count(&admin, IS_SUPERUSER).await, 0);
}

/// The owner of the database puts a view in the table's place while somebody who looks at the health waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn health_reads_no_other_table_of_the_name() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "exchanged_for_health", "pg_monitor").await;
    admin.batch_execute("DROP SCHEMA logins CASCADE; ALTER SCHEMA public OWNER TO mallory").await.unwrap();
    mallory
        .batch_execute(
            "BEGIN; DROP TABLE public.user_logins;
             CREATE VIEW public.user_logins AS SELECT 'x'::text AS masked_ip, 'y'::text AS masked_device_id WHERE mallory.climb();
             GRANT SELECT ON public.user_logins TO PUBLIC",
        )
        .await
        .unwrap();
    let reader = cluster.connect("exchanged_for_health").await.unwrap();
    let health = tokio::spawn(async move {
        texts(&reader, "SELECT state FROM pgmask.health WHERE item = 'older_tokens'").await
    });
    let waiting =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'public.user_logins'::regclass";
    wait_until("health waits", || async { count(&admin, waiting).await == 1 || health.is_finished() })
        .await
        .unwrap();
    mallory.batch_execute("COMMIT").await.unwrap();
    assert_eq!(health.await.unwrap(), ["failed"]);
    assert_eq!(count(&admin, IS_SUPERUSER).await, 0);
}

/// What others can note about the role that inserts, without any right to it, stops no ingestion.
#[tokio::test]
async fn nobody_else_can_have_the_writer_refused() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "writer_is_framed", "pgmask_ingester").await;
    admin
        .batch_execute(
            "ALTER ROLE mallory CREATEROLE; CREATE FOREIGN DATA WRAPPER wrapper; GRANT USAGE ON FOREIGN DATA WRAPPER wrapper TO mallory",
        )
        .await
        .unwrap();
    mallory
        .batch_execute("CREATE SERVER server FOREIGN DATA WRAPPER wrapper; CREATE USER MAPPING FOR pgmask_writer SERVER server")
        .await
        .unwrap();
    mallory.batch_execute("CREATE ROLE pgmask_x; GRANT pgmask_x TO pgmask_writer").await.unwrap();
    mallory.batch_execute(INGEST).await.unwrap();
}

/// Any role may have the plans of statements shown, with what they are given.
#[tokio::test]
async fn no_plan_of_a_statement_of_ours_is_shown() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (_admin, mallory) = mallory(&cluster, "plans_shown", "pgmask_ingester").await;
    mallory
        .batch_execute(
            "SET debug_print_parse = on; SET debug_print_rewritten = on; SET debug_print_plan = on;
             SET plan_cache_mode = force_custom_plan",
        )
        .await
        .unwrap();
    mallory
        .batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"u\", \"ip\": \"203.0.113.7\"}')")
        .await
        .unwrap();
    mallory.batch_execute("SELECT 1 AS last").await.unwrap();
    wait_until("it is logged", || async { cluster.log().contains(":resname last") }).await.unwrap();
    let log = cluster.log();
    assert!(log.contains("ingest_login"), "its own plan is");
    // The columns of the login table, and the ledger's.
    for column in [":resname masked_ip", "masked_device_id", "message_id"] {
        assert!(!log.contains(column), "{column}");
    }
}

/// `auto_explain` shows the plans of nested statements, with what they are given, at a level that a client may ask for.
#[tokio::test]
async fn no_plan_is_shown_to_the_client() {
    if !testbed::installation::shared().unwrap().extensions.join("pg_stat_statements.control").exists() {
        return; // auto_explain comes with it
    }
    let settings = [
        "shared_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_verbose = on",
        "auto_explain.log_nested_statements = on",
    ];
    let cluster = Cluster::start(&settings).await.unwrap();
    let (admin, _mallory) = mallory(&cluster, "plans_for_clients", "pgmask_ingester").await;
    let login = "SELECT pgmask.ingest_login('{\"user_id\": \"u\", \"ip\": \"203.0.113.7\"}')";
    let shown = |role: &str| {
        let mut psql = cluster.command("psql");
        psql.env("PGOPTIONS", "-c client_min_messages=log -c plan_cache_mode=force_custom_plan");
        psql.args([
            "--no-psqlrc",
            "--set",
            "ON_ERROR_STOP=1",
            "--command",
            login,
            &cluster.url(role, "plans_for_clients"),
        ]);
        let done = psql.output().unwrap();
        assert!(done.status.success());
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let shown = shown("mallory");
    assert!(shown.contains("Query Text: SELECT pgmask.ingest_login"), "its own plan is: {shown}");
    let token = texts(&admin, "SELECT masked_ip FROM user_logins").await.remove(0);
    for kept in [&token, "masked_ip", "message_id"] {
        assert!(!shown.contains(kept), "{kept} in {shown}");
    }
}
