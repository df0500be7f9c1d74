//! What code of the login table has had PostgreSQL keep is gone from the session afterwards, also where something fails or is read
//! anew in the midst of it.

use super::code_of_the_table::mallory;
use crate::common::{count, message, texts};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;
use tokio_postgres::Client;

const INGEST: &str = "SELECT pgmask.ingest_login('{\"user_id\": \"u\", \"ip\": \"192.0.2.1\"}')";

/// A function that waits until [`go_on`] with the same number.
const WAITS: &str = "CREATE TABLE mallory.go_on (x integer); GRANT SELECT ON mallory.go_on TO PUBLIC; GRANT USAGE ON SCHEMA mallory TO PUBLIC;
    CREATE FUNCTION mallory.waits(n integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_catalog.set_config('application_name', 'waits for ' || n, true);
        LOOP EXIT WHEN EXISTS (SELECT FROM mallory.go_on WHERE x = n); PERFORM pg_catalog.pg_sleep(0.02); END LOOP; RETURN true; END $$";

async fn go_on(mallory: &Client, number: i32) {
    mallory.batch_execute(&format!("INSERT INTO mallory.go_on VALUES ({number})")).await.unwrap();
}

async fn some_session_waits(admin: &Client, number: i32) {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'waits for {number}'");
    wait_until("a session waits", || async { count(admin, &sql).await > 0 }).await.unwrap();
}

/// A session that misses what others change reads its copies of catalogs anew, at its next lock or as it counts a call: between PostgreSQL's look at a function and the
/// function's start, what was kept for code of the table was kept for the session.
#[tokio::test]
async fn catalogs_that_are_read_anew_let_nothing_be_kept() {
    let cluster = Cluster::start(&["track_functions = pl"]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "read_anew").await;
    admin
        .batch_execute(
            r"GRANT TRIGGER ON user_logins TO mallory; CREATE SCHEMA dba; GRANT USAGE ON SCHEMA dba TO PUBLIC;
             CREATE FUNCTION dba.report() RETURNS text LANGUAGE plpgsql AS $$ DECLARE x text; BEGIN x := 'row'; RETURN x; END $$;
             CREATE FUNCTION dba.day() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT extract(day FROM '01/02/2026'::date)::text LIMIT 1 $$",
        )
        .await
        .unwrap();
    mallory
        .batch_execute(&format!(
            "{WAITS}; CREATE TABLE mallory.ran_as (who name); GRANT INSERT ON mallory.ran_as TO PUBLIC;
             CREATE FUNCTION mallory.changed() RETURNS void LANGUAGE sql AS '';
             CREATE FUNCTION mallory.locks() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM FROM pg_catalog.pg_ts_dict; END $$;
             CREATE FUNCTION mallory.evil(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO mallory.ran_as VALUES (current_user); RETURN true; END $$;
             CREATE DOMAIN mallory.text AS pg_catalog.text CHECK (mallory.evil(VALUE)); GRANT USAGE ON TYPE mallory.text TO PUBLIC;
             CREATE FUNCTION mallory.t() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN
                 PERFORM set_config('search_path', 'mallory, pg_catalog', true);
                 SELECT mallory.waits(1), dba.report() INTO r;
                 PERFORM set_config('DateStyle', 'ISO, DMY', true), set_config('search_path', '\"$user\", public', true);
                 SELECT mallory.waits(2), mallory.locks(), dba.day() INTO r;
                 RETURN NEW; END $$;
             CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.t()"
        ))
        .await
        .unwrap();
    let session = cluster.connect("read_anew").await.unwrap();
    let many_changes = async {
        for number in [1, 2] {
            some_session_waits(&admin, number).await;
            mallory
                .batch_execute(
                    "DO $$ BEGIN FOR i IN 1..3000 LOOP EXECUTE 'ALTER FUNCTION mallory.changed() COST ' || i; COMMIT; END LOOP; END $$",
                )
                .await
                .unwrap();
            go_on(&mallory, number).await;
        }
    };
    let (ingested, ()) = tokio::join!(session.batch_execute(INGEST), many_changes);
    ingested.unwrap();
    admin.batch_execute("DELETE FROM mallory.ran_as WHERE who = 'pgmask_writer'").await.unwrap();
    assert_eq!(texts(&session, "SELECT dba.report()").await, ["row"]);
    assert_eq!(texts(&session, "SELECT dba.day()").await, ["2"]);
    assert_eq!(count(&admin, "SELECT count(*) FROM mallory.ran_as").await, 0);
}

/// Tables that are open are read anew, which may have to wait for a lock, and fail.
#[tokio::test]
async fn a_lock_on_a_catalog_lets_nothing_be_kept() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "locked").await;
    admin
        .batch_execute(
            "GRANT TRIGGER ON user_logins TO mallory; CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC;
             CREATE FUNCTION app.is_slug(v text) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$ SELECT v ~ '^[a-z]+$' $$;
             CREATE DOMAIN app.slug AS text CHECK (app.is_slug(VALUE));
             CREATE TABLE app.staging (body jsonb); INSERT INTO app.staging VALUES ('{\"user_id\": \"u\"}')",
        )
        .await
        .unwrap();
    mallory
        .batch_execute(&format!(
            "{WAITS}; CREATE TABLE mallory.locked (x integer);
             CREATE TABLE mallory.ran_as (who name); GRANT INSERT ON mallory.ran_as TO PUBLIC;
             CREATE FUNCTION mallory.tells() RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO mallory.ran_as VALUES (current_user); END $$;
             CREATE FUNCTION mallory.evil(text, text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.tells(); RETURN true; END $$;
             CREATE OPERATOR mallory.~ (FUNCTION = mallory.evil, LEFTARG = text, RIGHTARG = text);
             CREATE FUNCTION mallory.t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM set_config('search_path', 'mallory, pg_catalog', true); PERFORM 'x'::app.slug;
                 PERFORM set_config('application_name', 'waits for 1', true);
                 LOOP EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE relation = 1259 AND mode = 'AccessExclusiveLock' AND granted);
                     PERFORM pg_sleep(0.02); END LOOP;
                 RETURN NEW; END $$;
             CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.t()"
        ))
        .await
        .unwrap();
    mallory.batch_execute("BEGIN; LOCK TABLE mallory.locked").await.unwrap();
    let session = cluster.connect("locked").await.unwrap();
    session.batch_execute("SET lock_timeout = '300ms'").await.unwrap();
    let locks = cluster.connect_as("mallory", "locked").await.unwrap();
    let lock_the_catalog = async {
        some_session_waits(&admin, 1).await;
        let rule = "CREATE RULE r AS ON INSERT TO pg_catalog.pg_class DO ALSO SELECT * FROM mallory.locked";
        message(&locks.batch_execute(&format!("SET lock_timeout = '3s'; {rule}")).await.unwrap_err())
    };
    let ingest = async {
        let failed =
            session.batch_execute("SELECT pgmask.ingest_login(body) FROM app.staging").await.unwrap_err();
        assert!(message(&failed).starts_with("55P03 "), "{failed:?}");
    };
    let ((), locked) = tokio::join!(ingest, lock_the_catalog);
    assert!(locked.starts_with("55P03 "), "{locked}");
    session.batch_execute("SELECT 'abc'::app.slug").await.unwrap();
    assert_eq!(
        texts(&admin, "SELECT who::text FROM mallory.ran_as WHERE who <> 'pgmask_writer'").await,
        [""; 0]
    );
}

/// `pgmask.health` takes an error of its sample for an answer, and its caller goes on in the same statement.
#[tokio::test]
async fn an_error_that_is_caught_lets_nothing_be_kept() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "caught").await;
    admin
        .batch_execute(&format!(
            "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC;
             CREATE FUNCTION app.bad() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT upper('x') $$;
             CREATE DOMAIN app.good AS text CHECK (VALUE <> app.bad()); ALTER TABLE user_logins OWNER TO mallory; {INGEST}"
        ))
        .await
        .unwrap();
    mallory
        .batch_execute(
            "GRANT USAGE ON SCHEMA mallory TO PUBLIC; CREATE FUNCTION mallory.upper(text) RETURNS text LANGUAGE sql AS $$ SELECT 'none' $$;
             CREATE FUNCTION mallory.t(v text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
                 IF current_user = 'mallory' THEN RETURN v; END IF;
                 PERFORM set_config('search_path', 'mallory, pg_catalog', true); PERFORM 'x'::app.good;
                 RAISE EXCEPTION 'none'; END $$;
             CREATE STATISTICS public.s ON (mallory.t('x') || user_id), create_date FROM user_logins",
        )
        .await
        .unwrap();
    let reads_and_goes_on = "DO $$ DECLARE failed bigint; good app.good; BEGIN
        failed := (SELECT count(*) FROM pgmask.health WHERE state = 'failed' AND value LIKE '%P0001%');
        IF failed = 0 THEN RAISE EXCEPTION 'the sample has not failed'; END IF;
        good := 'X'; END $$";
    let session = cluster.connect("caught").await.unwrap();
    let refused = message(&session.batch_execute(reads_and_goes_on).await.unwrap_err());
    assert!(refused.starts_with("23514 "), "{refused}");
}

/// What is dropped after code of a table has failed is read anew, which may fail as well, by a timeout say: that ended the subtransaction of
/// whoever called, with what was still in use, and the server.
#[tokio::test]
async fn a_timeout_after_a_failure_ends_no_more_than_the_statement() {
    let cluster = Cluster::start(&["shared_preload_libraries = 'pg_mask'"]).await.unwrap();
    let admin = cluster.database("late_timeout").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE oper LOGIN IN ROLE pgmask_operator; CREATE SCHEMA o AUTHORIZATION oper;
             CREATE TABLE o.t AS SELECT pgmask.mask_pii('192.0.2.1') AS masked_ip; ALTER TABLE o.t OWNER TO oper; SELECT pgmask.rotate_key()",
        )
        .await
        .unwrap();
    let oper = cluster.connect_as("oper", "late_timeout").await.unwrap();
    oper.batch_execute(
        "CREATE TABLE o.big (a int) PARTITION BY RANGE (a);
         DO $$ BEGIN FOR i IN 1..600 LOOP
             EXECUTE format('CREATE TABLE o.big_%s PARTITION OF o.big FOR VALUES FROM (%s) TO (%s)', i, i, i + 1); END LOOP; END $$;
         CREATE FUNCTION o.leaves() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE c refcursor := 'mine'; BEGIN OPEN c FOR SELECT 1; RETURN new; END $$;
         CREATE TRIGGER leaves BEFORE UPDATE ON o.t FOR EACH ROW EXECUTE FUNCTION o.leaves()",
    )
    .await
    .unwrap();
    let mut timed_out = 0;
    for timeout in (1..60).chain(1..60) {
        let opens = format!(
            "BEGIN; DECLARE c CURSOR FOR SELECT * FROM o.big; FETCH c; SAVEPOINT s; SET LOCAL statement_timeout = {timeout}"
        );
        oper.batch_execute(&opens).await.unwrap();
        let failed = oper
            .batch_execute(
                "DO $$ BEGIN PERFORM pgmask.remask_blocks('o.t'::regclass, NULL, NULL, 0, 10); END $$",
            )
            .await;
        let failed = message(&failed.unwrap_err());
        assert!(failed.starts_with("57014 ") || failed.starts_with("42501 "), "{failed}");
        timed_out += i32::from(failed.starts_with("57014 "));
        oper.batch_execute("ROLLBACK TO s; ROLLBACK").await.unwrap();
    }
    assert!(timed_out > 0, "some came in the midst");
    assert!(!cluster.log().contains("terminated by signal"), "{}", cluster.log());
}
