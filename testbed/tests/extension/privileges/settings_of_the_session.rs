//! Settings: what whoever's session it is has set does not change what code of the login table does, nor does such code set what takes
//! effect at once.

use super::code_of_the_table::mallory;
use crate::common::{cluster, count, ingest, message, texts};
use testbed::cluster::Cluster;

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

/// What one trigger sets holds for the next, which has other rights and writes statements with quotes doubled by hand.
#[tokio::test]
async fn code_that_reads_statements_otherwise_calls_nothing() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "quotes_within").await;
    admin
        .batch_execute(
            r"GRANT TRIGGER ON user_logins TO mallory; CREATE SCHEMA app; CREATE TABLE app.seen (user_id text, n int);
             CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = app, pg_temp AS $$ BEGIN
                 EXECUTE 'INSERT INTO app.seen VALUES (''' || pg_catalog.replace(NEW.user_id, '''', '''''') || ''', 1)'; RETURN NEW; END $$;
             REVOKE ALL ON FUNCTION app.note() FROM PUBLIC;
             CREATE TRIGGER note BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION app.note()",
        )
        .await
        .unwrap();
    mallory
        .batch_execute(
            r"CREATE FUNCTION mallory.sets() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM set_config('standard_conforming_strings', 'off', true), set_config('backslash_quote', 'on', true);
                 NEW.user_id := chr(92) || ''', 2); ALTER ROLE mallory SUPERUSER; --'; RETURN NEW; END $$;
             GRANT EXECUTE ON FUNCTION mallory.sets() TO PUBLIC;
             CREATE TRIGGER a BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.sets()",
        )
        .await
        .unwrap();
    let ingest = "SELECT pgmask.ingest_login('{\"user_id\": \"u\"}')";
    let refused = message(&admin.batch_execute(ingest).await.unwrap_err());
    assert!(refused.starts_with("42501 code of a table calls note() after it has changed"), "{refused}");
    assert_eq!(
        count(&admin, "SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND rolsuper").await,
        0
    );
}

/// A setting that has errors end the session stopped all other messages, and put what the error said of a row into the log.
#[tokio::test]
async fn no_error_of_such_code_ends_a_session() {
    let cluster = cluster().await;
    let admin = cluster.database("ends_by_error").await.unwrap();
    admin
        .batch_execute(
            "CREATE FUNCTION exits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.user_id = 'sets' THEN PERFORM set_config('exit_on_error', 'on', true); END IF;
                 IF NEW.user_id = 'ends' THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER exits BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION exits()",
        )
        .await
        .unwrap();
    let session = cluster.connect_as("pgmask_forwarder", "ends_by_error").await.unwrap();
    session.batch_execute("SET exit_on_error = on").await.unwrap();
    let bodies = ["sets", "ends", "passes"].map(|user| (user, format!("{{\"user_id\": \"{user}\"}}")));
    assert_eq!(ingest(&session, &bodies).await, [1, 0, 2]);
    assert_eq!(ingest(&session, &bodies).await, [0, 3, 0]);
    assert_eq!(texts(&session, "SHOW exit_on_error").await, ["on"]);
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

/// RESET brought back the search path that the client's session began with: honest code was compiled with an ingester's types.
#[tokio::test]
async fn a_reset_of_the_path_brings_no_session_back() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("resets").await.unwrap();
    admin
        .batch_execute(
            "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC; CREATE TABLE app.days (d date); GRANT INSERT ON app.days TO pgmask_writer;
             CREATE FUNCTION app.by_command() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 SET LOCAL search_path TO app, pg_catalog; INSERT INTO days VALUES (NEW.create_date); RESET search_path;
                 NEW.device_type := current_setting('search_path'); RETURN NEW; END $$;
             CREATE FUNCTION app.by_function() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_catalog.set_config('search_path', NULL, true); NEW.user_id := current_setting('search_path'); RETURN NEW; END $$;
             CREATE FUNCTION app.sees() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE t text; BEGIN t := NEW.masked_ip; NEW.locale := current_setting('search_path'); RETURN NEW; END $$;
             CREATE TRIGGER a BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION app.by_command();
             CREATE TRIGGER b BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION app.by_function();
             CREATE TRIGGER c BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION app.sees();
             CREATE SCHEMA its_own AUTHORIZATION pgmask_forwarder; GRANT USAGE ON SCHEMA its_own TO PUBLIC;
             ALTER ROLE pgmask_forwarder SET search_path = its_own, pg_catalog",
        )
        .await
        .unwrap();
    let session = cluster.connect_as("pgmask_forwarder", "resets").await.unwrap();
    session
        .batch_execute(
            "CREATE TABLE its_own.seen (t pg_catalog.text); GRANT INSERT ON its_own.seen TO PUBLIC;
             CREATE FUNCTION its_own.looks(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO its_own.seen VALUES ($1); RETURN true; END $$;
             CREATE DOMAIN its_own.text AS pg_catalog.text CHECK (its_own.looks(VALUE))",
        )
        .await
        .unwrap();
    session
        .batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"u\", \"ip\": \"192.0.2.1\"}')")
        .await
        .unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM its_own.seen").await, 0);
    let paths =
        texts(&admin, "SELECT device_type || '; ' || user_id || '; ' || locale FROM user_logins").await;
    assert_eq!(paths, [["pg_catalog, pg_temp"; 3].join("; ")]);
    assert_eq!(texts(&session, "SHOW search_path").await, ["its_own, pg_catalog"]);
}

/// Nobody looked at what such code did in parallel workers, which it could have started.
#[tokio::test]
async fn code_of_the_table_has_no_parallel_workers() {
    let cluster = cluster().await;
    let admin = cluster.database("no_workers").await.unwrap();
    let setting =
        "SELECT name FROM pg_settings WHERE name IN ('debug_parallel_query', 'force_parallel_mode')";
    let setting = texts(&admin, setting).await.remove(0);
    admin
        .batch_execute(&format!(
            "CREATE FUNCTION public.process() RETURNS integer PARALLEL SAFE LANGUAGE plpgsql AS 'BEGIN RETURN pg_backend_pid(); END';
             CREATE FUNCTION public.whose() RETURNS SETOF integer LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM set_config('{setting}', 'on', true), set_config('parallel_leader_participation', 'off', true);
                 RETURN QUERY SELECT public.process(); END $$;
             CREATE FUNCTION public.notes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.locale := (SELECT p FROM public.whose() AS p) = pg_backend_pid(); RETURN NEW; END $$;
             CREATE TRIGGER notes BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION notes()"
        ))
        .await
        .unwrap();
    assert_eq!(
        count(&admin, "SELECT count(*) FROM whose() AS p WHERE p <> pg_backend_pid()").await,
        1,
        "{setting} starts none"
    );
    assert_eq!(ingest(&admin, &[("a", "{\"user_id\": \"u\"}")]).await, [1, 0, 0]);
    assert_eq!(texts(&admin, "SELECT locale FROM user_logins").await, ["true"]);
}
