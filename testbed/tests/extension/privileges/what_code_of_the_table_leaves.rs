//! Code of the login table leaves nothing behind: no object, no cursor, no setting and no change to a role.

use super::code_of_the_table::{mallory, times};
use super::{INGEST, is_refused};
use crate::common::{cluster, count, ingest, message, texts};
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

/// PL/pgSQL keeps for a session what the types of a function mean, as its first call found them. Code of the table had that done
/// in a search path of its own, and was run by whoever called the function next.
#[tokio::test]
async fn code_of_the_table_has_no_function_compiled_for_later() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "compiles").await;
    cluster.apply_file("compiles", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "GRANT TRIGGER ON user_logins TO mallory; CREATE SCHEMA dba; GRANT USAGE ON SCHEMA dba TO PUBLIC;
             CREATE FUNCTION dba.report() RETURNS text LANGUAGE plpgsql AS $$ DECLARE x text; BEGIN x := 'row'; RETURN x; END $$;
             CREATE DOMAIN kind AS text;
             CREATE FUNCTION dba.in_whose_path() RETURNS text LANGUAGE plpgsql SET search_path = \"$user\", public AS $$ DECLARE x kind; BEGIN x := 'row'; RETURN x; END $$",
        )
        .await
        .unwrap();
    mallory
        .batch_execute(
            "CREATE TABLE mallory.ran_as (who pg_catalog.text); CREATE TABLE mallory.told (what pg_catalog.text);
             GRANT INSERT ON mallory.ran_as, mallory.told TO PUBLIC;
             CREATE FUNCTION mallory.evil(t pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO mallory.ran_as VALUES (current_user); RETURN true; END $$;
             CREATE FUNCTION mallory.own() RETURNS pg_catalog.text LANGUAGE plpgsql AS $$ DECLARE x text := 'own'; BEGIN RETURN x; END $$;
             CREATE DOMAIN mallory.text AS pg_catalog.text CHECK (mallory.evil(VALUE));
             CREATE DOMAIN mallory.kind AS pg_catalog.text CHECK (mallory.evil(VALUE)); GRANT USAGE ON TYPE mallory.kind TO PUBLIC;
             CREATE FUNCTION mallory.as_herself() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM dba.in_whose_path(); END $$;
             CREATE FUNCTION mallory.in_its_path(what pg_catalog.text) RETURNS void LANGUAGE plpgsql SET search_path = mallory, pg_catalog AS $$ BEGIN EXECUTE what; END $$;
             CREATE FUNCTION mallory.sets(what pg_catalog.text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM set_config('search_path', 'mallory, pg_catalog', true); EXECUTE what; END $$;
             CREATE FUNCTION mallory.tries() RETURNS boolean LANGUAGE plpgsql AS $$ DECLARE f pg_catalog.text; way pg_catalog.text; BEGIN
                 FOREACH way IN ARRAY ARRAY['SELECT mallory.in_its_path(%L)', 'SELECT mallory.sets(%L)']::pg_catalog.text[] LOOP
                     FOREACH f IN ARRAY ARRAY['dba.report()', 'plpgsql_validator(''dba.report()''::regprocedure)']::pg_catalog.text[] LOOP
                         BEGIN
                             EXECUTE format(way, 'SELECT ' || f); INSERT INTO mallory.told VALUES (f);
                         EXCEPTION WHEN insufficient_privilege THEN INSERT INTO mallory.told VALUES (SQLERRM); END;
                     END LOOP;
                 END LOOP;
                 PERFORM mallory.in_its_path('SELECT mallory.own()'); PERFORM mallory.as_herself();
                 RETURN true; END $$;
             CREATE FUNCTION mallory.compiles() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.tries(); RETURN NEW; END $$;
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA mallory TO PUBLIC; GRANT USAGE ON TYPE mallory.text TO PUBLIC;
             CREATE TRIGGER compiles BEFORE INSERT OR UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.compiles()",
        )
        .await
        .unwrap();
    admin
        .batch_execute(
            "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY;
             CREATE POLICY compiles ON user_logins USING (mallory.tries()) WITH CHECK (true)",
        )
        .await
        .unwrap();
    for (number, work) in [
        "SELECT pgmask.ingest_login('{\"user_id\": \"u\", \"ip\": \"192.0.2.1\"}')",
        "SELECT pgmask.rotate_key(); CALL pgmask.remask('user_logins')",
        "SELECT logins.refresh_dashboards()",
        "SELECT pgmask.mask_pii('x'); REFRESH MATERIALIZED VIEW logins.stored_shared_ips",
    ]
    .into_iter()
    .enumerate()
    {
        let session = cluster.connect("compiles").await.unwrap();
        for statement in work.split("; ") {
            session.batch_execute(statement).await.unwrap();
        }
        admin.batch_execute("DELETE FROM mallory.ran_as WHERE who LIKE 'pgmask%'").await.unwrap();
        admin.batch_execute("DELETE FROM mallory.ran_as WHERE who = 'mallory'").await.unwrap();
        for function in ["report", "in_whose_path"] {
            assert_eq!(texts(&session, &format!("SELECT dba.{function}()")).await, ["row"]);
        }
        assert_eq!(texts(&admin, "SELECT who FROM mallory.ran_as").await, [""; 0], "{work}");
        let told = texts(&admin, "SELECT DISTINCT what FROM mallory.told ORDER BY 1").await;
        assert_eq!(
            told,
            [
                "code of the table calls plpgsql_validator(), which reaches what belongs to the session",
                "dba.report()",
            ],
            "{number}: {work}"
        );
        admin.batch_execute("TRUNCATE mallory.told").await.unwrap();
    }
}

/// Whoever's session it is could have what honest code of the table calls compiled there before, with a type of its own that sees
/// tokens.
#[tokio::test]
async fn what_the_session_made_sees_no_row() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("warm").await.unwrap();
    cluster.apply_file("warm", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE SCHEMA dba; GRANT USAGE ON SCHEMA dba TO PUBLIC; CREATE TABLE dba.told (who text, what text); GRANT INSERT ON dba.told TO PUBLIC;
             CREATE FUNCTION dba.short(t text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE x text; BEGIN x := pg_catalog.lower(t); RETURN x; END $$;
             CREATE FUNCTION dba.log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM dba.short(NEW.masked_ip); RETURN NEW; END $$;
             CREATE TRIGGER log BEFORE INSERT OR UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION dba.log();
             CREATE ROLE ops LOGIN IN ROLE pgmask_operator",
        )
        .await
        .unwrap();
    let ingest = "SELECT pgmask.ingest_login('{\"user_id\": \"u\", \"ip\": \"192.0.2.1\"}')";
    admin.batch_execute(&format!("{ingest}; SELECT pgmask.rotate_key()")).await.unwrap();
    let check = "CREATE FUNCTION pg_temp.sees(t pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                     INSERT INTO dba.told VALUES (current_user, t); RETURN true; END $$;";
    let domain = "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.sees(VALUE));";
    let cast = "CREATE TEMPORARY TABLE text (t pg_catalog.text);
                CREATE FUNCTION pg_temp.of(t pg_catalog.text) RETURNS pg_temp.text LANGUAGE plpgsql AS $$ BEGIN
                    PERFORM pg_temp.sees(t); RETURN ROW(t)::pg_temp.text; END $$;
                CREATE CAST (pg_catalog.text AS pg_temp.text) WITH FUNCTION pg_temp.of AS ASSIGNMENT;";
    let table = "CREATE TEMPORARY TABLE text (t pg_catalog.text);";
    let of_array =
        "CREATE DOMAIN pg_temp.text AS pg_catalog.text[] CHECK (pg_temp.sees(VALUE::pg_catalog.text));";
    for own_type in [domain, of_array, cast, table] {
        for (role, work) in [
            ("pgmask_forwarder", ingest),
            ("ops", "CALL pgmask.remask('public.user_logins')"),
            ("ops", "SELECT logins.refresh_dashboards()"),
        ] {
            let session = cluster.connect_as(role, "warm").await.unwrap();
            session
                .batch_execute(&format!("{check} {own_type} SET search_path = pg_temp, pg_catalog"))
                .await
                .unwrap();
            let _ = session.batch_execute("SELECT dba.short('warm'); RESET search_path").await;
            let refused = message(&session.batch_execute(work).await.unwrap_err());
            assert!(refused.starts_with("42501 this session has made text for itself"), "{work}: {refused}");
        }
    }
    let told =
        "SELECT DISTINCT who || ' ' || left(what, 3) FROM dba.told WHERE what <> '' AND what <> 'warm'";
    assert_eq!(texts(&admin, told).await, [""; 0]);
    // Types elsewhere are not met.
    let session = cluster.connect_as("pgmask_forwarder", "warm").await.unwrap();
    admin
        .batch_execute(
            "CREATE SCHEMA its_own AUTHORIZATION pgmask_forwarder; GRANT USAGE ON SCHEMA its_own TO PUBLIC",
        )
        .await
        .unwrap();
    let elsewhere = |sql: &str| sql.replace("pg_temp", "its_own");
    session.batch_execute(&elsewhere(&format!("{check} {domain} SET search_path = pg_temp, pg_catalog; SELECT dba.short('warm'); RESET search_path"))).await.unwrap();
    session.batch_execute(ingest).await.unwrap();
    assert_eq!(texts(&admin, told).await, [""; 0]);
}

/// An ingester's settings changed what a statement means that code of the table writes with quotes doubled by hand: it ran
/// another, with the rights of that code's owner.
#[tokio::test]
async fn settings_of_the_session_change_no_statement_of_such_code() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("quotes").await.unwrap();
    admin
        .batch_execute(
            r"CREATE TABLE by_user (u text, n integer);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN
                 EXECUTE 'INSERT INTO public.by_user SELECT ''' || replace(NEW.user_id, '''', '''''') || ''', 1'; RETURN NEW; END $$;
             CREATE TRIGGER note AFTER INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .await
        .unwrap();
    let session = cluster.connect_as("pgmask_forwarder", "quotes").await.unwrap();
    session
        .batch_execute(
            r#"SET standard_conforming_strings = off; SET backslash_quote = on;
             SELECT pgmask.ingest_login($j${"user_id": "\\', 2; ALTER ROLE pgmask_forwarder CREATEDB; --"}$j$)"#,
        )
        .await
        .unwrap();
    let has_more = "SELECT count(*) FROM pg_roles WHERE rolname = 'pgmask_forwarder' AND rolcreatedb";
    assert_eq!(count(&admin, has_more).await, 0);
    assert_eq!(count(&admin, "SELECT count(*) FROM by_user WHERE u LIKE '%CREATEDB%' AND n = 1").await, 1);
    assert_eq!(texts(&session, "SHOW standard_conforming_strings").await, ["off"]);
}

/// PostgreSQL keeps checks of domains and expressions of indexes for a session, with functions in SQL put in place as the search
/// path of that moment says. Code of the table had them made for whoever's session it was, and the other way round.
#[tokio::test]
async fn what_a_session_keeps_of_domains_and_indexes_is_its_own() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "kept_apart").await;
    admin
        .batch_execute(
            r"GRANT TRIGGER ON user_logins TO mallory; CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC;
             CREATE FUNCTION app.has_at(v text) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$ SELECT v ~ '@' $$;
             CREATE DOMAIN app.email AS text CHECK (app.has_at(VALUE));
             CREATE FUNCTION app.both(a text, b text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT a || ' ' || b $$;
             CREATE TABLE app.people (a text, b text); CREATE INDEX ON app.people (app.both(a, b));
             CREATE FUNCTION app.honest() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM (NEW.masked_ip || '@')::app.email; RETURN NEW; END $$;
             CREATE TRIGGER honest BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION app.honest()",
        )
        .await
        .unwrap();
    let traps = |schema: &str| {
        format!(
            "CREATE TABLE {schema}.ran_as (who pg_catalog.name, what pg_catalog.text); GRANT INSERT ON {schema}.ran_as TO PUBLIC;
             CREATE FUNCTION {schema}.tell(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO {schema}.ran_as VALUES (current_user, $1); RETURN true; END $$;
             CREATE FUNCTION {schema}.deed(pg_catalog.text, pg_catalog.text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
                 RETURN {schema}.tell($1); END $$;
             CREATE FUNCTION {schema}.joins(pg_catalog.text, pg_catalog.text) RETURNS pg_catalog.text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM {schema}.tell($1); RETURN $1; END $$;
             GRANT USAGE ON SCHEMA {schema} TO PUBLIC;
             CREATE OPERATOR {schema}.~ (FUNCTION = {schema}.deed, LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text);
             CREATE OPERATOR {schema}.|| (FUNCTION = {schema}.joins, LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text)"
        )
    };
    mallory.batch_execute(&traps("mallory")).await.unwrap();
    mallory
        .batch_execute(
            "CREATE FUNCTION mallory.warms() RETURNS trigger LANGUAGE plpgsql SET search_path = mallory, pg_catalog AS $$ BEGIN
                 PERFORM 'a@b'::app.email; BEGIN EXECUTE 'SELECT FROM app.people'; EXCEPTION WHEN OTHERS THEN NULL; END; RETURN NEW; END $$;
             GRANT EXECUTE ON FUNCTION mallory.warms() TO PUBLIC;
             CREATE TRIGGER a_warms BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.warms()",
        )
        .await
        .unwrap();
    for fails in [false, true] {
        let session = cluster.connect("kept_apart").await.unwrap();
        if fails {
            admin
                .batch_execute("ALTER TABLE user_logins ADD CONSTRAINT none CHECK (user_id <> 'u') NOT VALID")
                .await
                .unwrap();
        }
        let ingested = session.batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"u\"}')").await;
        assert_eq!(ingested.is_err(), fails);
        admin.batch_execute("DELETE FROM mallory.ran_as WHERE who = 'pgmask_writer'").await.unwrap();
        session
            .batch_execute("SELECT 'x@y'::app.email; INSERT INTO app.people VALUES ('a', 'b')")
            .await
            .unwrap();
        assert_eq!(texts(&admin, "SELECT who FROM mallory.ran_as").await, [""; 0], "{fails}");
    }
    // An ingester has them made before, in a schema of its own, and would see tokens.
    admin.batch_execute("ALTER TABLE user_logins DROP CONSTRAINT none; DROP TRIGGER a_warms ON user_logins; CREATE SCHEMA its_own AUTHORIZATION pgmask_forwarder").await.unwrap();
    let session = cluster.connect_as("pgmask_forwarder", "kept_apart").await.unwrap();
    session.batch_execute(&traps("its_own")).await.unwrap();
    session
        .batch_execute(
            "SET search_path = its_own, pg_catalog; SELECT 'a@b'::app.email; TRUNCATE its_own.ran_as",
        )
        .await
        .unwrap();
    session
        .batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"v\", \"ip\": \"192.0.2.1\"}')")
        .await
        .unwrap();
    assert_eq!(texts(&admin, "SELECT what FROM its_own.ran_as").await, [""; 0]);
}

/// The only timeout that takes effect in the midst of a statement ended the session, and so stopped all other messages.
#[tokio::test]
async fn code_of_the_table_ends_no_session_by_a_timeout() {
    let cluster = cluster().await;
    let admin = cluster.database("ends_by_timeout").await.unwrap();
    if count(&admin, "SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout'").await == 0 {
        return; // before PostgreSQL 17
    }
    admin
        .batch_execute(
            "CREATE FUNCTION times_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.user_id = 'ends' THEN PERFORM set_config('transaction_timeout', '1ms', true); PERFORM pg_sleep(0.05); END IF;
                 RETURN NEW; END $$;
             CREATE TRIGGER times_out BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION times_out()",
        )
        .await
        .unwrap();
    let session = cluster.connect_as("pgmask_forwarder", "ends_by_timeout").await.unwrap();
    let messages = [("a", "{\"user_id\": \"ends\"}"), ("b", "{\"user_id\": \"passes\"}")];
    assert_eq!(ingest(&session, &messages).await, [1, 0, 1]);
}
