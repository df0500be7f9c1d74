//! `remask` and `pgmask.health` read and write with the rights of a table's owner, and nobody else's code has these then.

use super::INGEST;
use crate::common::{cluster, count, message, texts};
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

/// What code of others a table may have: what its owner did in good faith, and mallory then.
fn ways() -> Vec<(&'static str, String, &'static str)> {
    let partitioned = |by: &str, partitions: &str| {
        format!(
            "DROP TABLE user_logins CASCADE;
             CREATE TABLE public.user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
                 masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date) PARTITION BY RANGE ({by});
             {partitions};
             INSERT INTO user_logins (user_id, masked_ip) VALUES ('u', repeat('0', 64))"
        )
    };
    vec![
        (
            "trigger",
            "GRANT TRIGGER ON user_logins TO mallory".to_owned(),
            "CREATE TRIGGER t BEFORE UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.climbs()",
        ),
        (
            "condition",
            "GRANT TRIGGER ON user_logins TO mallory; CREATE FUNCTION honest() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'".to_owned(),
            "CREATE TRIGGER t BEFORE UPDATE ON user_logins FOR EACH ROW WHEN (mallory.climb()) EXECUTE FUNCTION honest()",
        ),
        (
            // It runs any SQL, and nothing notes that the condition depends on it.
            "function_of_postgresqls",
            "GRANT TRIGGER ON user_logins TO mallory".to_owned(),
            "CREATE TRIGGER t BEFORE UPDATE ON user_logins FOR EACH ROW
                 WHEN (ts_rewrite('a', 'SELECT ''a''::tsquery, ''a''::tsquery WHERE mallory.climb()') IS NOT NULL)
                 EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        ),
        (
            "parent",
            partitioned(
                "create_date",
                "ALTER TABLE user_logins OWNER TO mallory; SET ROLE mallory;
                 CREATE TRIGGER t BEFORE UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.climbs(); RESET ROLE;
                 CREATE TABLE leaf PARTITION OF user_logins DEFAULT",
            ),
            "SELECT 1",
        ),
        (
            "other_partition",
            partitioned(
                "masked_ip",
                "CREATE TABLE a PARTITION OF user_logins FOR VALUES FROM (MINVALUE) TO ('m');
                 CREATE TABLE b PARTITION OF user_logins FOR VALUES FROM ('m') TO (MAXVALUE); ALTER TABLE b OWNER TO mallory",
            ),
            "CREATE TRIGGER t BEFORE INSERT ON b FOR EACH ROW EXECUTE FUNCTION mallory.climbs()",
        ),
        (
            "domain",
            "SET ROLE mallory; CREATE DOMAIN mallory.token AS varchar(256); RESET ROLE;
             ALTER TABLE user_logins ALTER masked_device_id TYPE mallory.token".to_owned(),
            "ALTER DOMAIN mallory.token ADD CHECK (mallory.climb())",
        ),
        (
            "base_domain",
            "SET ROLE mallory; CREATE DOMAIN mallory.token AS varchar(256); RESET ROLE; CREATE DOMAIN own_token AS mallory.token;
             ALTER TABLE user_logins ALTER masked_device_id TYPE own_token".to_owned(),
            "ALTER DOMAIN mallory.token ADD CHECK (mallory.climb()) NOT VALID",
        ),
        (
            "generated_domain",
            "SET ROLE mallory; CREATE DOMAIN mallory.token AS text; RESET ROLE;
             ALTER TABLE user_logins ADD also mallory.token GENERATED ALWAYS AS (masked_ip::text) STORED".to_owned(),
            "ALTER DOMAIN mallory.token ADD CHECK (mallory.climb()) NOT VALID",
        ),
        (
            "domain_in_an_array",
            "SET ROLE mallory; CREATE DOMAIN mallory.token AS text; RESET ROLE;
             ALTER TABLE user_logins ADD also mallory.token[] GENERATED ALWAYS AS (ARRAY[masked_ip::text]) STORED".to_owned(),
            "ALTER DOMAIN mallory.token ADD CHECK (mallory.climb()) NOT VALID",
        ),
        (
            "domain_in_a_composite",
            "SET ROLE mallory; CREATE DOMAIN mallory.token AS text; RESET ROLE; CREATE TYPE pair AS (a text, b mallory.token);
             ALTER TABLE user_logins ADD also pair GENERATED ALWAYS AS (ROW(masked_ip, masked_ip)) STORED".to_owned(),
            "ALTER DOMAIN mallory.token ADD CHECK (mallory.climb()) NOT VALID",
        ),
        (
            "domain_in_a_check",
            "SET ROLE mallory; CREATE DOMAIN mallory.token AS text; RESET ROLE;
             ALTER TABLE user_logins ADD CHECK (masked_ip::text::mallory.token IS NOT NULL)".to_owned(),
            "ALTER DOMAIN mallory.token ADD CHECK (mallory.climb()) NOT VALID",
        ),
        (
            "domain_in_an_index",
            "SET ROLE mallory; CREATE DOMAIN mallory.token AS text; RESET ROLE;
             CREATE INDEX ON user_logins ((masked_ip::text::mallory.token))".to_owned(),
            "ALTER DOMAIN mallory.token ADD CHECK (mallory.climb()) NOT VALID",
        ),
        (
            "type_with_a_function",
            "SET ROLE mallory; CREATE FUNCTION mallory.difference(float8, float8) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 - $2; END';
             CREATE TYPE mallory.span AS RANGE (subtype = float8, subtype_diff = mallory.difference); RESET ROLE;
             ALTER TABLE user_logins ADD span mallory.span DEFAULT mallory.span(-1, 2000); CREATE INDEX ON user_logins (masked_ip);
             INSERT INTO user_logins (user_id, span) SELECT n, mallory.span(n, n + 1) FROM generate_series(1, 1000) n;
             CREATE INDEX ON user_logins USING gist (span)"
                .to_owned(),
            // Within an index no error may be caught.
            "CREATE OR REPLACE FUNCTION mallory.difference(float8, float8) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM nextval('mallory.ran'); IF current_user = 'postgres' THEN PERFORM mallory.climb(); END IF; RETURN $1 - $2; END $$",
        ),
        (
            "type_with_a_cast",
            "SET ROLE mallory; CREATE TYPE mallory.kind AS ENUM ('x'); CREATE FUNCTION mallory.number(mallory.kind) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
             CREATE CAST (mallory.kind AS int) WITH FUNCTION mallory.number(mallory.kind) AS IMPLICIT; RESET ROLE;
             CREATE TABLE kinds (kind int PRIMARY KEY); INSERT INTO kinds VALUES (1);
             ALTER TABLE user_logins ADD kind mallory.kind DEFAULT 'x' REFERENCES kinds"
                .to_owned(),
            "CREATE OR REPLACE FUNCTION mallory.number(mallory.kind) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
                 'BEGIN PERFORM mallory.climb(); RETURN 1; END'",
        ),
        (
            "cast_that_is_looked_up",
            "SET ROLE mallory; CREATE TYPE mallory.colour AS ENUM ('x'); RESET ROLE;
             ALTER TABLE user_logins ADD colour mallory.colour DEFAULT 'x', ADD CHECK (to_jsonb(colour) IS NOT NULL)"
                .to_owned(),
            "CREATE FUNCTION mallory.json(mallory.colour) RETURNS json LANGUAGE plpgsql AS
                 'BEGIN PERFORM mallory.climb(); RETURN to_json(enum_out($1)::text); END';
             CREATE CAST (mallory.colour AS json) WITH FUNCTION mallory.json(mallory.colour)",
        ),
        (
            "rule_into_a_table",
            "SET ROLE mallory; CREATE TABLE mallory.log (was text); RESET ROLE;
             CREATE RULE also AS ON UPDATE TO user_logins DO ALSO INSERT INTO mallory.log VALUES (old.masked_ip)"
                .to_owned(),
            "CREATE TRIGGER t BEFORE INSERT ON mallory.log FOR EACH ROW EXECUTE FUNCTION mallory.climbs()",
        ),
        (
            "rule_with_a_view",
            "SET ROLE mallory; CREATE VIEW mallory.seen AS SELECT true AS is; RESET ROLE; CREATE TABLE log (is_seen boolean);
             CREATE RULE also AS ON UPDATE TO user_logins DO ALSO INSERT INTO log SELECT seen.is FROM mallory.seen"
                .to_owned(),
            "CREATE OR REPLACE VIEW mallory.seen AS SELECT mallory.climb() AS is",
        ),
        (
            // The planner looks at them, and computes what is constant.
            "statistics",
            "SET ROLE mallory; CREATE FUNCTION mallory.small(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)'; RESET ROLE;
             CREATE STATISTICS kept ON mallory.small(masked_ip), user_id FROM user_logins; ANALYZE user_logins"
                .to_owned(),
            "CREATE OR REPLACE FUNCTION mallory.small(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT lower($1) || mallory.quiet('') $$",
        ),
        (
            "function_of_a_former_owner",
            "GRANT CREATE ON SCHEMA public TO mallory; ALTER TABLE user_logins OWNER TO mallory; SET ROLE mallory; CREATE INDEX ON user_logins (mallory.quiet(user_id));
             ALTER TABLE user_logins ADD CHECK (mallory.climb()); RESET ROLE; ALTER TABLE user_logins OWNER TO postgres"
                .to_owned(),
            "SELECT 1",
        ),
    ]
}

/// Code of a table has no rights while its tokens are lifted, whoever made it: that of others made them superusers.
#[tokio::test]
async fn code_of_the_login_table_runs_without_rights() {
    let cluster = Cluster::start(&[]).await.unwrap();
    for (name, in_good_faith, by_mallory) in ways() {
        let (admin, mallory) = mallory(&cluster, &format!("lifts_{name}"), "pgmask_operator").await;
        admin.batch_execute("DROP SCHEMA logins CASCADE").await.unwrap();
        admin.batch_execute(&in_good_faith).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        mallory.batch_execute(by_mallory).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        lifts_without_rights(&admin, &mallory, "user_logins", name).await;
        assert_eq!(
            texts(&admin, "SELECT state FROM pgmask.health WHERE item = 'older_tokens'").await,
            ["ok"],
            "{name}"
        );
        assert_eq!(count(&admin, IS_SUPERUSER).await, 0, "{name}");
    }
}

/// So it is with every other table, which its owner lifts, such as a superuser.
#[tokio::test]
async fn code_of_any_table_runs_without_rights() {
    let cluster = Cluster::start(&[]).await.unwrap();
    for (name, in_good_faith, by_mallory) in ways() {
        let of_another = |sql: &str| sql.replace("user_logins", "legacy");
        let (admin, mallory) = mallory(&cluster, &format!("remask_{name}"), "pgmask_operator").await;
        admin
            .batch_execute(
                "CREATE TABLE public.legacy (LIKE user_logins); GRANT CREATE, USAGE ON SCHEMA public TO mallory;
                 INSERT INTO legacy (user_id, masked_ip) VALUES ('u', repeat('0', 64))",
            )
            .await
            .unwrap();
        let good_faith = admin.batch_execute(&of_another(&in_good_faith)).await;
        good_faith.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let by_mallory = mallory.batch_execute(&of_another(by_mallory)).await;
        by_mallory.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        lifts_without_rights(&admin, &admin, "legacy", name).await;
    }
}

async fn lifts_without_rights(admin: &Client, caller: &Client, table: &str, name: &str) {
    let before = count(admin, RAN).await;
    let lifted = caller.batch_execute(&format!("CALL pgmask.remask('public.{table}')")).await;
    lifted.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    assert!(count(admin, RAN).await > before, "{name}: it never ran");
    assert_eq!(count(admin, IS_SUPERUSER).await, 0, "{name}");
    let tokens = format!("SELECT count(*) FROM public.{table} WHERE masked_ip LIKE 'm1\\_%'");
    assert_eq!(count(admin, &tokens).await, 1, "{name}");
    // What this statement of a superuser's ran, it ran as a superuser.
    admin.batch_execute("ALTER ROLE mallory NOSUPERUSER").await.unwrap();
}

/// What follows a foreign key is done as the owner of the other table, and so is what happens there.
#[tokio::test]
async fn foreign_keys_that_would_follow_are_refused() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "follows", "pgmask_operator").await;
    admin
        .batch_execute(
            "CREATE TABLE legacy (masked_ip text UNIQUE); INSERT INTO legacy VALUES (repeat('0', 64));
             ALTER TABLE user_logins ADD UNIQUE (masked_ip)",
        )
        .await
        .unwrap();
    for (table, caller) in [("user_logins", &mallory), ("legacy", &admin)] {
        for action in ["CASCADE", "SET NULL", "SET DEFAULT"] {
            admin
                .batch_execute(&format!(
                    "CREATE TABLE notes (masked_ip text REFERENCES {table} (masked_ip) ON UPDATE {action});
                     GRANT TRIGGER ON notes TO mallory; GRANT USAGE ON SCHEMA public TO mallory; INSERT INTO notes VALUES (repeat('0', 64))"
                ))
                .await
                .unwrap();
            let trigger =
                "CREATE TRIGGER t BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION mallory.climbs()";
            mallory.batch_execute(trigger).await.unwrap();
            let call = format!("CALL pgmask.remask('public.{table}')");
            let error = message(&caller.batch_execute(&call).await.expect_err(&call));
            assert!(
                error.starts_with("0A000 ") && error.contains("notes_masked_ip_fkey of table "),
                "{error}"
            );
            assert_eq!(count(&admin, IS_SUPERUSER).await, 0, "{table} {action}");
            admin.batch_execute("DROP TABLE notes").await.unwrap();
        }
        // A generated column changes with the token that it is made of.
        admin
            .batch_execute(&format!(
                "ALTER TABLE {table} ADD start text GENERATED ALWAYS AS (left(masked_ip, 9)) STORED UNIQUE;
                 CREATE TABLE notes (start text REFERENCES {table} (start) ON UPDATE CASCADE)"
            ))
            .await
            .unwrap();
        let call = format!("CALL pgmask.remask('public.{table}')");
        let error = message(&caller.batch_execute(&call).await.expect_err(&call));
        assert!(error.starts_with("0A000 ") && error.contains("notes_start_fkey of table "), "{error}");
        admin.batch_execute("DROP TABLE notes").await.unwrap();
        // One that changes nothing by itself is no reason.
        admin
            .batch_execute(&format!("CREATE TABLE notes (masked_ip text REFERENCES {table} (masked_ip))"))
            .await
            .unwrap();
        caller.batch_execute(&format!("CALL pgmask.remask('public.{table}')")).await.unwrap();
        admin.batch_execute("DROP TABLE notes").await.unwrap();
    }
}

/// A row that moves to another partition is taken out of its own, and what refers to that one alone went with it.
#[tokio::test]
async fn rows_that_move_take_none_with_them() {
    let admin = cluster().await.database("taken_along").await.unwrap();
    admin
        .batch_execute(
            "CREATE TABLE parts (masked_ip text, n int) PARTITION BY LIST (left(masked_ip, 3));
             CREATE TABLE hashes PARTITION OF parts FOR VALUES IN ('000'); CREATE TABLE tokens PARTITION OF parts FOR VALUES IN ('m1_');
             ALTER TABLE hashes ADD UNIQUE (n); INSERT INTO parts VALUES (repeat('0', 64), 1);
             CREATE TABLE notes (n int REFERENCES hashes (n) ON DELETE CASCADE); INSERT INTO notes VALUES (1)",
        )
        .await
        .unwrap();
    let error = message(&admin.batch_execute("CALL pgmask.remask('parts')").await.unwrap_err());
    assert!(error.starts_with("0A000 ") && error.contains("notes_n_fkey of table "), "{error}");
    assert_eq!(count(&admin, "SELECT count(*) FROM notes").await, 1);
}

/// As the role that inserts logins, whoever has a table of their own would have made up logins.
#[tokio::test]
async fn code_of_any_table_inserts_no_login() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "made_up", "pgmask_operator").await;
    admin
        .batch_execute("CREATE TABLE only_for_writer (n int); GRANT ALL ON only_for_writer TO pgmask_writer")
        .await
        .unwrap();
    mallory
        .batch_execute(
            "CREATE DOMAIN mallory.text AS text; CREATE TABLE mallory.own (masked_ip text, also mallory.text);
             INSERT INTO mallory.own VALUES (repeat('0', 64), NULL);
             CREATE FUNCTION mallory.makes_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM mallory.climb();
                 BEGIN INSERT INTO public.user_logins (user_id) VALUES ('made up'); EXCEPTION WHEN insufficient_privilege THEN NULL; END;
                 BEGIN INSERT INTO public.only_for_writer VALUES (1); EXCEPTION WHEN insufficient_privilege THEN NULL; END;
                 RETURN NEW; END $$;
             CREATE TRIGGER t BEFORE UPDATE ON mallory.own FOR EACH ROW EXECUTE FUNCTION mallory.makes_up()",
        )
        .await
        .unwrap();
    admin.batch_execute("CALL pgmask.remask('mallory.own')").await.unwrap();
    assert_eq!(count(&admin, RAN).await, 1);
    assert_eq!(count(&admin, IS_SUPERUSER).await, 0);
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins WHERE user_id = 'made up'").await, 0);
    assert_eq!(count(&admin, "SELECT count(*) FROM only_for_writer").await, 0);
}

/// A lock keeps others from adding partitions, but not code in the same transaction: a foreign one got rows with the rights of
/// the owner of the whole table.
#[tokio::test]
async fn no_partition_is_added_in_the_midst() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "in_the_midst", "pgmask_operator").await;
    admin
        .batch_execute(
            "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere; GRANT USAGE ON FOREIGN SERVER nowhere TO mallory;
             DROP TABLE user_logins CASCADE;
             CREATE TABLE user_logins (user_id text, device_type text, masked_ip text, masked_device_id text, locale text,
                 app_version integer, create_date date) PARTITION BY LIST (left(masked_ip, 3));
             CREATE TABLE hashes PARTITION OF user_logins FOR VALUES IN ('000'); INSERT INTO user_logins (masked_ip) VALUES (repeat('0', 64));
             CREATE TABLE tokens PARTITION OF user_logins FOR VALUES IN ('m1_'); CREATE TABLE others PARTITION OF user_logins DEFAULT PARTITION BY LIST (user_id);
             ALTER TABLE tokens OWNER TO mallory; ALTER TABLE others OWNER TO mallory; GRANT INSERT ON user_logins TO pgmask_writer",
        )
        .await
        .unwrap();
    for (n, command) in [
        "CREATE FOREIGN TABLE mallory.elsewhere PARTITION OF public.others FOR VALUES IN ('x') SERVER nowhere",
        "CREATE TABLE mallory.elsewhere PARTITION OF public.others FOR VALUES IN ('x')",
        "ALTER TABLE public.others ATTACH PARTITION mallory.ready FOR VALUES IN ('x')",
    ]
    .into_iter()
    .enumerate()
    {
        mallory
            .batch_execute(&format!(
                "CREATE TABLE IF NOT EXISTS mallory.ready (LIKE public.others);
                 CREATE OR REPLACE FUNCTION mallory.adds() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                     PERFORM nextval('mallory.ran'); {command}; RETURN NEW; END $$;
                 CREATE OR REPLACE TRIGGER t BEFORE INSERT ON public.tokens FOR EACH ROW EXECUTE FUNCTION mallory.adds()"
            ))
            .await
            .unwrap();
        for call in [
            "CALL pgmask.remask('public.user_logins')".to_owned(),
            format!("SELECT pgmask.ingest_login('{{\"user_id\": \"u{n}\", \"ip\": \"203.0.113.7\"}}')"),
        ] {
            let error = message(&admin.batch_execute(&call).await.expect_err(&call));
            assert!(error.starts_with("42501 "), "{command}: {call}: {error}");
        }
    }
    assert_eq!(
        count(&admin, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'others'::regclass").await,
        0
    );
}

/// Partitions that are exchanged while their parent's lock is waited for are as many as before, and others.
#[tokio::test]
async fn partitions_that_are_exchanged_are_held() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, _mallory) = mallory(&cluster, "held", "pgmask_operator").await;
    admin
        .batch_execute(
            "CREATE TABLE parts (masked_ip text, n int) PARTITION BY LIST (masked_ip); CREATE TABLE ordinary PARTITION OF parts DEFAULT;
             INSERT INTO parts VALUES (repeat('0', 64), 1);
             CREATE TABLE below PARTITION OF parts FOR VALUES IN ('x') PARTITION BY LIST (n);
             CREATE TABLE a PARTITION OF below FOR VALUES IN (1) PARTITION BY LIST (n); CREATE TABLE b (LIKE parts) PARTITION BY LIST (n)",
        )
        .await
        .unwrap();
    let exchanges = cluster.connect("held").await.unwrap();
    exchanges
        .batch_execute("BEGIN; ALTER TABLE below DETACH PARTITION a; ALTER TABLE below ATTACH PARTITION b FOR VALUES IN (1)")
        .await
        .unwrap();
    let caller = cluster.connect("held").await.unwrap();
    let calls = tokio::spawn(async move {
        caller.batch_execute("BEGIN").await.unwrap();
        caller
            .batch_execute("SELECT pgmask.remask_blocks('ordinary'::regclass, NULL, NULL, 0, 1)")
            .await
            .unwrap();
        caller
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    wait_until("it waits", || async { count(&admin, waits).await == 1 }).await.unwrap();
    exchanges.batch_execute("COMMIT").await.unwrap();
    let _caller = calls.await.unwrap();
    let held =
        "SELECT count(*) FROM pg_locks WHERE relation = 'b'::regclass AND mode = 'ShareUpdateExclusiveLock'";
    assert_eq!(count(&admin, held).await, 1);
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
    mallory.batch_execute("CALL pgmask.remask('public.user_logins')").await.unwrap();
    assert!(count(&admin, RAN).await > 0, "it never ran");
    assert_eq!(count(&admin, IS_SUPERUSER).await, 0);
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

/// Whoever owns a part of the login table may add one on another server, which is asked in the name of whoever reads; as a
/// superuser, a wrapper may need no password.
#[tokio::test]
async fn no_other_server_is_asked_with_the_owners_rights() {
    let admin = cluster().await.database("foreign_parts").await.unwrap();
    admin
        .batch_execute(
            "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
             DROP TABLE user_logins CASCADE;
             CREATE TABLE user_logins (user_id text, device_type text, masked_ip text, masked_device_id text, locale text,
                 app_version integer, create_date date) PARTITION BY LIST (masked_ip);
             CREATE TABLE ordinary PARTITION OF user_logins DEFAULT;
             INSERT INTO user_logins (masked_ip) VALUES (repeat('0', 64));
             CREATE TABLE below PARTITION OF user_logins FOR VALUES IN ('x') PARTITION BY LIST (user_id);
             CREATE FOREIGN TABLE public.elsewhere PARTITION OF below DEFAULT SERVER nowhere",
        )
        .await
        .unwrap();
    let tokens = "SELECT value FROM pgmask.health WHERE item = 'older_tokens'";
    assert_eq!(texts(&admin, tokens).await, ["1 of 1 sampled rows"]);
    let error = message(&admin.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap_err());
    assert!(error.starts_with("42809 partition public.elsewhere is on another server"), "{error}");
    admin.batch_execute("ALTER TABLE below DETACH PARTITION elsewhere").await.unwrap();
    admin.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
    assert_eq!(texts(&admin, tokens).await, ["0 of 1 sampled rows"]);
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

/// A cursor that code of the table leaves open may be held over a commit, and then runs with the rights of who commits:
/// one that PL/Perl has pinned made its owner a superuser.
#[tokio::test]
async fn code_of_the_table_leaves_no_cursor_open() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "left_open", "pgmask_operator").await;
    admin.batch_execute("ALTER TABLE user_logins OWNER TO mallory").await.unwrap();
    mallory
        .batch_execute(
            "CREATE FUNCTION mallory.opens() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE cursor refcursor;
             BEGIN
                 IF NEW.user_id = 'opens' THEN OPEN cursor FOR SELECT mallory.climb(); END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER t BEFORE INSERT OR UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.opens();
             ALTER TABLE user_logins DISABLE TRIGGER t;
             INSERT INTO user_logins (user_id, masked_ip) VALUES ('opens', repeat('0', 64));
             ALTER TABLE user_logins ENABLE TRIGGER t",
        )
        .await
        .unwrap();
    for call in [
        "CALL pgmask.remask('public.user_logins')",
        "SELECT pgmask.ingest_login('{\"user_id\": \"opens\"}')",
        "SELECT pgmask.ingest_login_batch('{a}', '{\"{\\\"user_id\\\":\\\"opens\\\"}\"}', '{NULL}', '{1}')",
    ] {
        let error = message(&admin.batch_execute(call).await.expect_err(call));
        assert!(error.starts_with("42501 code of the table leaves a cursor open"), "{call}: {error}");
    }
    admin.batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"opens none\"}')").await.unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM pg_cursors WHERE name <> ''").await, 0);
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
