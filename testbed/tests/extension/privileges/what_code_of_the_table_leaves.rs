//! Code of the login table leaves nothing behind: no object, no cursor, no setting and no change to a role.

use super::code_of_the_table::{mallory, times};
use super::{INGEST, is_refused};
use crate::common::{count, ingest, message, texts};
use testbed::cluster::Cluster;

/// What the writer made it would own, and the next batch be refused for it. PL/pgSQL looks once in a transaction at what an
/// expression may call: where its caller has called it before, it is looked at anew all the same.
#[tokio::test]
async fn code_of_the_table_leaves_nothing_behind() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "leaves_nothing").await;
    admin.batch_execute("GRANT TRIGGER ON user_logins TO mallory").await.unwrap();
    mallory
        .batch_execute(
            "CREATE FUNCTION mallory.makes() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM mallory.make(); RETURN NEW; END $$;
             CREATE FUNCTION mallory.make() RETURNS oid LANGUAGE plpgsql AS $$ DECLARE made oid; BEGIN made := lo_create(0); RETURN made; END $$;
             CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW WHEN (NEW.user_id = 'makes') EXECUTE FUNCTION mallory.makes()",
        )
        .await
        .unwrap();
    let makes = "SELECT pgmask.ingest_login('{\"user_id\": \"makes\"}')";
    is_refused(&admin, makes).await;
    admin
        .batch_execute("BEGIN; SET LOCAL search_path = pg_catalog, pg_temp; SELECT mallory.make()")
        .await
        .unwrap();
    let error = message(&admin.batch_execute(makes).await.unwrap_err());
    assert!(error.starts_with("42501 code of the table calls lo_create()"), "{error}");
    admin.batch_execute("ROLLBACK").await.unwrap();
    // Nor when constraints that wait are checked before the rows, of which there are none.
    mallory
        .batch_execute(
            "CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON user_logins DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW WHEN (NEW.user_id = 'waits') EXECUTE FUNCTION mallory.makes()",
        )
        .await
        .unwrap();
    for ingests in [
        "SELECT pgmask.ingest_login_batch('{}', '{}', '{}', '{}')",
        "SELECT pgmask.ingest_login_batch('{bad}', '{bad}', '{now}', '{1}')",
        INGEST,
    ] {
        let begun = "BEGIN; SET LOCAL search_path = pg_catalog, pg_temp; SELECT mallory.make();
            INSERT INTO public.user_logins (user_id) VALUES ('waits')";
        admin.batch_execute(begun).await.unwrap();
        let error = message(&admin.batch_execute(ingests).await.unwrap_err());
        assert!(error.starts_with("42501 code of the table calls lo_create()"), "{ingests}: {error}");
        admin.batch_execute("ROLLBACK").await.unwrap();
    }
    admin.batch_execute(INGEST).await.unwrap();
    assert_eq!(
        count(
            &admin,
            "SELECT count(*) FROM pg_shdepend WHERE refobjid = 'pgmask_writer'::regrole AND deptype = 'o'"
        )
        .await,
        0
    );
}

/// Types are looked for in the temporary schema first: a domain `text` that code of the table made there, in the session of who
/// ingested or had tokens lifted, ran its check with that one's rights, with the next `::text`.
#[tokio::test]
async fn code_of_the_table_makes_no_type_in_the_session() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "makes_types").await;
    admin.batch_execute("GRANT TRIGGER ON user_logins TO mallory").await.unwrap();
    mallory
        .batch_execute(
            "CREATE TABLE mallory.made (what text);
             CREATE FUNCTION mallory.makes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET client_min_messages = debug1 AS $$ DECLARE command text; BEGIN
                 FOREACH command IN ARRAY ARRAY['CREATE DOMAIN pg_temp.text AS pg_catalog.text', 'CREATE TYPE pg_temp.text AS ENUM ()',
                     'CREATE TYPE pg_temp.text AS RANGE (subtype = int)', 'CREATE TYPE pg_temp.text', 'CREATE TYPE pg_temp.text AS (n int)',
                     'CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS ''SELECT 1''', 'CREATE TABLE pg_temp.text (n int)'] LOOP
                     BEGIN
                         EXECUTE command;
                         INSERT INTO mallory.made VALUES (command);
                     EXCEPTION WHEN OTHERS THEN NULL; END;
                 END LOOP;
                 PERFORM nextval('mallory.ran'); RAISE DEBUG 'shown: %', NEW; RAISE NOTICE 'shown: %', NEW; RAISE INFO 'shown: %', NEW; RAISE WARNING 'shown: %', NEW; RETURN NEW; END $$;
             CREATE TRIGGER t BEFORE INSERT OR UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.makes()",
        )
        .await
        .unwrap();
    for (times_run, runs) in
        [(1, INGEST), (2, "SELECT pgmask.ingest_login('{\"user_id\": \"u\", \"ip\": \"203.0.113.7\"}')")]
    {
        admin.batch_execute(runs).await.unwrap();
        assert_eq!(times(&admin).await, times_run);
    }
    admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    admin.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
    assert_eq!(times(&admin).await, 3);
    assert_eq!(texts(&admin, "SELECT what FROM mallory.made").await, [""; 0]);
    // Nor does what it says reach the client, who need not be allowed to see a row.
    let mut psql = cluster.command("psql");
    psql.args([
        "--no-psqlrc",
        "--command",
        "SELECT pgmask.ingest_login('{\"user_id\": \"u\"}')",
        &cluster.url("pgmask_forwarder", "makes_types"),
    ]);
    let said = psql.output().unwrap();
    assert!(said.status.success());
    assert_eq!(String::from_utf8_lossy(&said.stderr), "");
    assert_eq!(times(&admin).await, 4);
}

/// What the client has set holds after code of the table has run or failed, also where that had set it for itself.
#[tokio::test]
async fn settings_are_as_before_code_of_the_table() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("quiet_after").await.unwrap();
    admin
        .batch_execute(
            "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql SET client_min_messages = warning SET jit = on SET debug_print_plan = on AS $$ BEGIN
                 PERFORM set_config(name, 'on', false) FROM unnest('{jit, debug_print_parse}'::text[]) AS name;
                 PERFORM set_config('client_min_messages', 'error', false);
                 IF NEW.user_id = 'fails' THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER fails BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fails()",
        )
        .await
        .unwrap();
    let settings = "SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN ('client_min_messages', 'jit', 'debug_print_parse', 'debug_print_rewritten', 'debug_print_plan')";
    let before = texts(&admin, settings).await;
    let messages = [("a", "{\"user_id\": \"fails\"}"), ("b", "{\"user_id\": \"passes\"}")];
    assert_eq!(ingest(&admin, &messages).await, [1, 0, 1]);
    assert_eq!(texts(&admin, settings).await, before);
    admin.batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"passes\"}')").await.unwrap();
    assert_eq!(texts(&admin, settings).await, before);
    admin.batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"fails\"}')").await.unwrap_err();
    assert_eq!(texts(&admin, settings).await, before);
}

/// PostgreSQL knows constraints by their names: what waited for the caller's own table, under the name of one of the login
/// table's, ran as the writer.
#[tokio::test]
async fn what_waits_under_the_same_name_does_not_run_as_the_writer() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "same_name").await;
    admin
        .batch_execute(
            "CREATE TABLE users (user_id varchar(128) PRIMARY KEY); INSERT INTO users VALUES ('1'); GRANT pgmask_ingester TO mallory;
             ALTER TABLE user_logins ADD CONSTRAINT of_user FOREIGN KEY (user_id) REFERENCES users DEFERRABLE INITIALLY DEFERRED",
        )
        .await
        .unwrap();
    mallory
        .batch_execute(
            "CREATE TABLE public.mine (n int); GRANT ALL ON public.mine TO PUBLIC;
             CREATE FUNCTION mallory.puts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO public.user_logins (user_id, masked_ip) VALUES ('1', 'mine'); RETURN NULL; END $$;
             GRANT USAGE ON SCHEMA mallory TO PUBLIC;
             CREATE CONSTRAINT TRIGGER of_user AFTER INSERT ON public.mine DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mallory.puts();
             BEGIN; INSERT INTO public.mine VALUES (1)",
        )
        .await
        .unwrap();
    let error = message(&mallory.batch_execute(INGEST).await.unwrap_err());
    assert!(
        error.starts_with("42501 a check of table mine waits")
            || error.starts_with("42501 a check of table public.mine waits"),
        "{error}"
    );
    mallory.batch_execute("ROLLBACK").await.unwrap();
    // Nobody else is stopped by it, nor is who lets nothing wait.
    mallory.batch_execute(INGEST).await.unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins WHERE masked_ip = 'mine'").await, 0);
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, 1);
}

/// One message whose row has code of the table leave something does not stop its neighbours.
#[tokio::test]
async fn a_row_whose_code_leaves_something_is_quarantined_alone() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("leaves_for_one").await.unwrap();
    admin
        .batch_execute(
            "CREATE FUNCTION leaves() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE found CURSOR FOR SELECT 1; BEGIN
                 IF NEW.user_id = 'cursor' THEN OPEN found; END IF;
                 IF NEW.user_id = 'object' THEN PERFORM lo_create(0); END IF;
                 RETURN NEW; END $$;
             CREATE TRIGGER leaves BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION leaves()",
        )
        .await
        .unwrap();
    let bodies = ["a", "cursor", "b", "object", "c"].map(|user| format!("{{\"user_id\": \"{user}\"}}"));
    let messages: Vec<_> = bodies.iter().enumerate().map(|(n, body)| (format!("m{n}"), body)).collect();
    assert_eq!(ingest(&admin, &messages).await, [3, 0, 2]);
    let reasons = texts(&admin, "SELECT reason FROM pgmask.quarantine").await;
    assert_eq!(reasons, ["rejected:42501", "rejected:42501"]);
    assert_eq!(count(&admin, "SELECT count(*) FROM pg_largeobject_metadata").await, 0);
    // They pass once the cause is gone, and by themselves are told why not.
    let alone = "SELECT pgmask.ingest_login('{\"user_id\": \"cursor\"}')";
    let error = message(&admin.batch_execute(alone).await.unwrap_err());
    assert!(error.starts_with("42501 code of the table leaves a cursor open"), "{error}");
    admin
        .batch_execute("DROP TRIGGER leaves ON user_logins; SELECT pgmask.replay_quarantine()")
        .await
        .unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, 5);
}

/// Every role may change itself, and every function fetch from a cursor of its session whose name it knows: code of the
/// table gave pgmask_writer a password, and read and took away what the client had not fetched yet.
#[tokio::test]
async fn code_of_the_table_changes_no_role_and_reads_no_cursor() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "its_cursors").await;
    admin.batch_execute("GRANT TRIGGER ON user_logins TO mallory").await.unwrap();
    mallory
        .batch_execute(
            "GRANT ALL ON SCHEMA mallory TO PUBLIC; CREATE TABLE mallory.worked (what text); GRANT INSERT ON mallory.worked TO PUBLIC;
             CREATE FUNCTION mallory.tries() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE step text; cursor refcursor; fetched record;
             BEGIN
                 PERFORM nextval('mallory.ran');
                 FOREACH step IN ARRAY ARRAY[
                     'ALTER ROLE pgmask_writer PASSWORD ''mine''', 'ALTER ROLE CURRENT_USER VALID UNTIL ''2000-01-01''',
                     'ALTER ROLE pgmask_writer SET work_mem = ''1MB''', 'ALTER ROLE CURRENT_USER IN DATABASE its_cursors SET work_mem = ''1MB''',
                     'ALTER ROLE pgmask_writer RESET ALL', 'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO mallory',
                     'GRANT pgmask_writer TO mallory', 'CLOSE ALL', 'DISCARD PLANS', 'DEALLOCATE ALL',
                     'EXPLAIN ANALYZE CREATE TABLE mallory.made AS SELECT 1', 'EXPLAIN ANALYZE CREATE MATERIALIZED VIEW mallory.made AS SELECT 1'
                 ] LOOP
                     BEGIN
                         EXECUTE step;
                         INSERT INTO mallory.worked VALUES (step);
                     EXCEPTION WHEN OTHERS THEN NULL;
                     END;
                 END LOOP;
                 FOREACH step IN ARRAY ARRAY['scrolls', 'is held']
                     || ARRAY(SELECT name FROM pg_cursors)
                     || ARRAY(SELECT format('<unnamed portal %s>', n) FROM generate_series(1, 20) AS n)
                 LOOP
                     BEGIN
                         cursor := step;
                         FETCH cursor INTO fetched;
                         INSERT INTO mallory.worked VALUES (step || ': ' || fetched);
                     EXCEPTION WHEN OTHERS THEN NULL;
                     END;
                     BEGIN
                         cursor := step;
                         CLOSE cursor;
                         INSERT INTO mallory.worked VALUES ('closed ' || step);
                     EXCEPTION WHEN OTHERS THEN NULL;
                     END;
                 END LOOP;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.tries()",
        )
        .await
        .unwrap();
    let settings = "SELECT setrole::regrole || setconfig::text FROM pg_db_role_setting ORDER BY 1";
    let before = texts(&admin, settings).await;
    admin
        .batch_execute(
            "ALTER TABLE user_logins ADD CHECK (user_id <> 'refused');
             CREATE TABLE staging (body jsonb);
             INSERT INTO staging SELECT jsonb_build_object('user_id', 'staged ' || n) FROM generate_series(1, 5) AS n;
             BEGIN;
             DECLARE \"is held\" CURSOR WITH HOLD FOR SELECT 'secret ' || n FROM generate_series(1, 3) AS n;
             COMMIT;
             BEGIN;
             DECLARE scrolls SCROLL CURSOR FOR SELECT 'secret ' || n FROM generate_series(1, 3) AS n",
        )
        .await
        .unwrap();
    let both_give = async |row: &str| {
        for cursor in ["scrolls", "is held"] {
            assert_eq!(texts(&admin, &format!("FETCH 1 FROM \"{cursor}\"")).await, [row], "{cursor}");
        }
        assert_eq!(count(&admin, "SELECT count(*) FROM pg_cursors WHERE name = 'is held'").await, 1);
    };
    both_give("secret 1").await;
    admin.batch_execute(INGEST).await.unwrap();
    both_give("secret 2").await;
    // They are the client's again after an error, too.
    admin.batch_execute("SAVEPOINT s").await.unwrap();
    admin.batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"refused\"}')").await.unwrap_err();
    admin.batch_execute("ROLLBACK TO s").await.unwrap();
    both_give("secret 3").await;
    admin.batch_execute("COMMIT; CLOSE ALL").await.unwrap();
    // A loop has a cursor of its own.
    admin
        .batch_execute(
            "DO $$ DECLARE message record; BEGIN
                 FOR message IN SELECT body FROM staging LOOP PERFORM pgmask.ingest_login(message.body); END LOOP;
             END $$",
        )
        .await
        .unwrap();
    assert!(times(&admin).await >= 6, "it ran");
    assert_eq!(texts(&admin, "SELECT what FROM mallory.worked").await, [""; 0]);
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins WHERE user_id LIKE 'staged %'").await, 5);
    assert_eq!(texts(&admin, settings).await, before);
    let has_password = "SELECT count(*) FROM pg_authid WHERE rolname = 'pgmask_writer'
        AND (rolpassword IS NOT NULL OR rolvaliduntil IS NOT NULL)";
    assert_eq!(count(&admin, has_password).await, 0);
}
