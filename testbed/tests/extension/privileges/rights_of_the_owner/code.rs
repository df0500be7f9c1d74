//! Code of the tables that are lifted: whose rights it has, and what follows it to other tables.

use super::{IS_SUPERUSER, RAN, mallory};
use crate::common::{cluster, count, message, texts};
use testbed::cluster::Cluster;
use tokio_postgres::Client;

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
        let database = format!("lifts_{name}");
        let (admin, mallory) = mallory(&cluster, &database, "pgmask_operator").await;
        admin.batch_execute("DROP SCHEMA logins CASCADE").await.unwrap();
        admin.batch_execute(&in_good_faith).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        mallory.batch_execute(by_mallory).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        lifts_without_rights(&admin, &mallory, "user_logins", name).await;
        // The admin's own session has used such a type.
        let fresh = cluster.connect(&database).await.unwrap();
        assert_eq!(
            texts(&fresh, "SELECT state FROM pgmask.health WHERE item = 'older_tokens'").await,
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
    // Functions in SQL are not put in place while such code runs, so statistics compute nothing.
    assert!(count(admin, RAN).await > before || name == "statistics", "{name}: it never ran");
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
