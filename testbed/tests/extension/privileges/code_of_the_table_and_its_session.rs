//! Code of a table has the session of somebody else for a moment: it has pg_mask do nothing there, and reaches nothing of
//! what the session holds.

use super::code_of_the_table::{mallory, times};
use super::is_refused;
use crate::common::{cluster, count, ingest, message, texts};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;

/// An operator's trigger replayed what was just being replayed, and had it stored twice; and a cancel that came while a
/// nested batch ran was taken for an error of that batch.
#[tokio::test]
async fn code_of_the_table_has_no_batch_taken_in() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "nested_calls").await;
    admin
        .batch_execute(
            "GRANT TRIGGER ON user_logins TO mallory; GRANT pgmask_operator, pgmask_ingester TO mallory",
        )
        .await
        .unwrap();
    admin.batch_execute("ALTER TABLE user_logins ADD CONSTRAINT none CHECK (false)").await.unwrap();
    let messages = [("a", "{\"user_id\": \"u\"}"), ("b", "{\"user_id\": \"v\"}")];
    assert_eq!(ingest(&admin, &messages).await, [0, 0, 2]);
    admin.batch_execute("ALTER TABLE user_logins DROP CONSTRAINT none").await.unwrap();
    for call in [
        "SELECT * FROM pgmask.replay_quarantine()",
        "SELECT pgmask.ingest_login('{\"user_id\": \"nested\"}')",
        "SELECT * FROM pgmask.ingest_login_batch('{c}', '{\"{\\\"user_id\\\":1}\"}', '{NULL}', '{1}')",
        "SELECT * FROM pgmask.ingest_login_batch('{}', '{}', '{}', '{}')",
    ] {
        let made = format!(
            "CREATE TABLE mallory.said (what text);
             CREATE FUNCTION mallory.nests() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $f$ DECLARE done record; BEGIN
                 PERFORM nextval('mallory.ran');
                 IF pg_trigger_depth() = 1 THEN
                     BEGIN EXECUTE $c${call}$c$ INTO done; EXCEPTION WHEN OTHERS THEN
                         INSERT INTO mallory.said VALUES (SQLSTATE || ' ' || SQLERRM); END;
                 END IF;
                 RETURN NEW; END $f$;
             CREATE TRIGGER nests BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.nests()"
        );
        mallory.batch_execute(&made).await.unwrap();
        admin.batch_execute("BEGIN; SELECT pgmask.replay_quarantine()").await.unwrap();
        assert_eq!(texts(&admin, "SELECT user_id FROM user_logins ORDER BY 1").await, ["u", "v"], "{call}");
        let refused = "42501 code of a table calls what runs code of tables itself";
        assert_eq!(texts(&admin, "SELECT what FROM mallory.said").await, [refused; 2], "{call}");
        admin.batch_execute("ROLLBACK").await.unwrap();
        mallory.batch_execute("DROP FUNCTION mallory.nests CASCADE; DROP TABLE mallory.said").await.unwrap();
    }
    assert_eq!(times(&admin).await, 8);
    admin.batch_execute("SELECT pgmask.replay_quarantine()").await.unwrap();
}

/// What waits for the commit is whoever's who began the transaction.
#[tokio::test]
async fn code_of_the_table_has_no_constraints_checked() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "checks_early").await;
    admin.batch_execute("GRANT TRIGGER ON user_logins TO mallory").await.unwrap();
    for definer in ["", "SECURITY DEFINER"] {
        let made = format!(
            "CREATE OR REPLACE FUNCTION mallory.checks() RETURNS trigger LANGUAGE plpgsql {definer} AS $$ BEGIN
                 PERFORM nextval('mallory.ran'); SET CONSTRAINTS ALL IMMEDIATE; RETURN NEW; END $$;
             CREATE OR REPLACE TRIGGER checks BEFORE INSERT OR UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.checks()"
        );
        mallory.batch_execute(&made).await.unwrap();
        is_refused(&admin, "SELECT pgmask.ingest_login('{\"user_id\": \"u\"}')").await;
    }
    // Nor while tokens are lifted, where pg_mask has them checked itself.
    mallory.batch_execute("ALTER TABLE user_logins DISABLE TRIGGER checks").await.unwrap_err();
    admin.batch_execute("ALTER TABLE user_logins DISABLE TRIGGER checks").await.unwrap();
    admin
        .batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"u\", \"ip\": \"203.0.113.7\"}')")
        .await
        .unwrap();
    admin
        .batch_execute("ALTER TABLE user_logins ENABLE TRIGGER checks; SELECT pgmask.rotate_key()")
        .await
        .unwrap();
    is_refused(&admin, "CALL pgmask.remask('user_logins')").await;
    admin.batch_execute("DROP TRIGGER checks ON user_logins").await.unwrap();
    admin.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
    assert_eq!(times(&admin).await, 3);
}

/// A large object that the client has open can be read by a number, and session locks are the session's.
#[tokio::test]
async fn code_of_the_table_reaches_no_large_object_and_no_lock_of_the_session() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "its_locks").await;
    admin.batch_execute("GRANT TRIGGER ON user_logins TO mallory").await.unwrap();
    mallory
        .batch_execute(
            "GRANT USAGE ON SCHEMA mallory TO PUBLIC; CREATE TABLE mallory.worked (what text); GRANT INSERT ON mallory.worked TO PUBLIC;
             CREATE FUNCTION mallory.reaches() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE call text; got text; BEGIN
                 PERFORM nextval('mallory.ran');
                 FOREACH call IN ARRAY ARRAY['loread(0, 100)', 'lo_lseek(0, 0, 0)', 'lowrite(0, ''x'')', 'lo_close(0)', 'lo_tell64(0)',
                     'lo_truncate(0, 0)', 'lo_create(0)', 'pg_advisory_unlock(7)', 'pg_advisory_unlock_all()', 'pg_advisory_lock(8)',
                     'pg_try_advisory_lock_shared(8, 8)'] LOOP
                     BEGIN
                         EXECUTE 'SELECT ' || call INTO got;
                         INSERT INTO mallory.worked VALUES (call || ': ' || coalesce(got, ''));
                     EXCEPTION WHEN OTHERS THEN NULL; END;
                 END LOOP;
                 PERFORM pg_advisory_xact_lock(9);
                 RETURN NEW; END $$;
             CREATE TRIGGER reaches BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.reaches()",
        )
        .await
        .unwrap();
    for definer in ["SECURITY INVOKER", "SECURITY DEFINER"] {
        mallory.batch_execute(&format!("ALTER FUNCTION mallory.reaches {definer}")).await.unwrap();
        admin
            .batch_execute(&format!(
                "SELECT pg_advisory_lock(7); BEGIN;
                 SELECT lo_open(lo_from_bytea(0, 'of the client'), 393216);
                 SELECT pgmask.ingest_login('{{\"user_id\": \"{definer}\"}}')"
            ))
            .await
            .unwrap();
        assert_eq!(texts(&admin, "SELECT convert_from(loread(0, 100), 'UTF8')").await, ["of the client"]);
        let locks = "SELECT string_agg(objid::text, ' ' ORDER BY objid) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
        assert_eq!(texts(&admin, locks).await, ["7 9"]);
        admin.batch_execute("COMMIT; SELECT pg_advisory_unlock(7)").await.unwrap();
    }
    assert_eq!(times(&admin).await, 2);
    assert_eq!(texts(&admin, "SELECT what FROM mallory.worked").await, [""; 0]);
}

/// Code of the login table that calls a function of somebody else's ran it with the right to insert logins: hashes of guesses
/// came in, for whoever lifts tokens next.
#[tokio::test]
async fn what_code_of_the_table_calls_inserts_no_logins() {
    let admin = cluster().await.database("inserts_beside").await.unwrap();
    for (n, table) in ["public.user_logins", "public.rows_of_2026", "public.shown"].iter().enumerate() {
        admin
            .batch_execute(&format!(
                "DROP TABLE user_logins CASCADE;
                 CREATE TABLE user_logins (user_id text, device_type text, masked_ip text, masked_device_id text, locale text, app_version int,
                     create_date date) PARTITION BY RANGE (create_date);
                 CREATE TABLE rows_of_2026 PARTITION OF user_logins DEFAULT;
                 CREATE VIEW shown AS SELECT * FROM user_logins;
                 GRANT INSERT ON user_logins, rows_of_2026, shown TO pgmask_writer;
                 CREATE OR REPLACE FUNCTION of_an_analyst() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                     INSERT INTO {table} (user_id, masked_ip, create_date) VALUES ('guess', repeat('0', 64), '2026-11-27'); END $$;
                 CREATE OR REPLACE FUNCTION calls() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF NEW.user_id = 'calls' THEN PERFORM public.of_an_analyst(); END IF; RETURN NEW; END $$;
                 CREATE TRIGGER calls BEFORE INSERT OR UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION calls()"
            ))
            .await
            .unwrap();
        let [passes, calls] =
            ["passes", "calls"].map(|user| format!("{{\"user_id\":\"{user}\",\"ip\":\"203.0.113.7\"}}"));
        let messages = [(format!("a{n}"), passes), (format!("b{n}"), calls)];
        let messages: Vec<_> = messages.iter().map(|(id, body)| (id.as_str(), body.as_str())).collect();
        assert_eq!(ingest(&admin, &messages).await, [1, 0, 1], "{table}");
        assert_eq!(texts(&admin, "SELECT user_id FROM user_logins").await, ["passes"], "{table}");
        // Nor while tokens are lifted.
        admin.batch_execute("UPDATE user_logins SET masked_ip = repeat('1', 64)").await.unwrap();
        let trigger = "CREATE OR REPLACE FUNCTION calls() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM public.of_an_analyst(); RETURN NEW; END $$";
        admin.batch_execute(trigger).await.unwrap();
        let refused = message(&admin.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap_err());
        assert!(refused.starts_with("42501 "), "{refused}");
        admin.batch_execute("DROP TRIGGER calls ON user_logins").await.unwrap();
        admin.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
        assert_eq!(
            count(&admin, "SELECT count(*) FROM user_logins WHERE masked_ip LIKE 'm1%'").await,
            1,
            "{table}"
        );
    }
}

/// What a foreign key has follow, PostgreSQL writes as the owner of the table that follows: code of the login table changed a key
/// as the writer, which honest code needs to keep users up to date, and a trigger of the same person's ran as a superuser.
#[tokio::test]
async fn code_of_the_table_has_no_table_follow_a_key() {
    let cluster = Cluster::start(&[]).await.unwrap();
    for (action, change) in [
        ("ON UPDATE CASCADE", "UPDATE public.users SET id = id || 'x' WHERE id = 'u1'"),
        ("ON DELETE CASCADE", "DELETE FROM public.users WHERE id = 'u1'"),
        ("ON DELETE SET NULL", "DELETE FROM public.users WHERE id = 'u1'"),
    ] {
        let name = format!("follows_{}", action.to_lowercase().replace(' ', "_"));
        let (admin, mallory) = mallory(&cluster, &name).await;
        admin
            .batch_execute(&format!(
                "CREATE TABLE users (id varchar(128) PRIMARY KEY, seen int DEFAULT 0);
                 ALTER TABLE user_logins ADD FOREIGN KEY (user_id) REFERENCES users {action};
                 GRANT SELECT, INSERT, UPDATE, DELETE ON users TO pgmask_writer;
                 CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     INSERT INTO public.users AS u VALUES (NEW.user_id, 1) ON CONFLICT (id) DO UPDATE SET seen = u.seen + 1; RETURN NEW; END $$;
                 CREATE TRIGGER a BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION seen(); GRANT TRIGGER ON user_logins TO mallory"
            ))
            .await
            .unwrap();
        let messages = |id: &'static str, user: &str| [(id, format!("{{\"user_id\": \"{user}\"}}"))];
        assert_eq!(ingest(&admin, &messages("a", "u1")).await, [1, 0, 0]);
        assert_eq!(ingest(&admin, &messages("b", "u1")).await, [1, 0, 0]);
        mallory
            .batch_execute(&format!(
                "CREATE FUNCTION mallory.changes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {change}; RETURN NULL; END $$;
                 CREATE FUNCTION mallory.follows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     PERFORM nextval('mallory.ran'); ALTER ROLE mallory SUPERUSER; RETURN COALESCE(NEW, OLD); END $$;
                 CREATE TRIGGER b AFTER INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.changes();
                 CREATE TRIGGER c BEFORE UPDATE OR DELETE ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.follows()"
            ))
            .await
            .unwrap();
        let ingests = "SELECT pgmask.ingest_login('{\"user_id\": \"u2\"}')";
        let refused = message(&admin.batch_execute(ingests).await.unwrap_err());
        let expected = "42501 code of a table changes a key that table user_logins follows";
        assert!(refused.starts_with(expected), "{action}: {refused}");
        assert_eq!(times(&admin).await, 0, "{action}");
        let is_superuser = "SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND rolsuper";
        assert_eq!(count(&admin, is_superuser).await, 0, "{action}");
        admin.batch_execute("DROP SCHEMA mallory CASCADE").await.unwrap();
    }
}

/// Whatever the table is called by then: its schema is renamed while the code of its owner runs.
#[tokio::test]
async fn a_table_under_another_name_gets_no_row_beside() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "renamed_meanwhile").await;
    admin
        .batch_execute(
            "CREATE SCHEMA house AUTHORIZATION mallory; ALTER TABLE user_logins SET SCHEMA house; GRANT USAGE ON SCHEMA house TO PUBLIC;
             ALTER DATABASE renamed_meanwhile SET pgmask.login_table = 'house.user_logins'; GRANT TRIGGER ON house.user_logins TO mallory;
             GRANT CREATE ON DATABASE renamed_meanwhile TO mallory",
        )
        .await
        .unwrap();
    mallory
        .batch_execute(
            "CREATE TABLE mallory.got (what text); GRANT ALL ON mallory.got TO PUBLIC;
             CREATE FUNCTION mallory.waits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM nextval('mallory.ran'), pg_advisory_xact_lock(1);
                 PERFORM FROM pg_namespace WHERE nspname = 'moved'; -- as PostgreSQL takes notice then
                 BEGIN
                     EXECUTE 'INSERT INTO moved.user_logins (user_id) VALUES (''beside'')';
                 EXCEPTION WHEN insufficient_privilege THEN INSERT INTO mallory.got VALUES (SQLERRM); END;
                 RETURN NEW; END $$;
             CREATE TRIGGER waits BEFORE INSERT ON house.user_logins FOR EACH ROW WHEN (NEW.user_id <> 'beside') EXECUTE FUNCTION mallory.waits();
             SELECT pg_advisory_lock(1)",
        )
        .await
        .unwrap();
    let client = cluster.connect("renamed_meanwhile").await.unwrap();
    let ingests = tokio::spawn(async move {
        client.batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"u\"}')").await
    });
    let is_waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    wait_until("its code waits", || async { count(&admin, is_waiting).await == 1 }).await.unwrap();
    mallory.batch_execute("ALTER SCHEMA house RENAME TO moved").await.unwrap();
    mallory.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    ingests.await.unwrap().unwrap();
    assert_eq!(texts(&admin, "SELECT user_id FROM moved.user_logins").await, ["u"]);
    let refused = "code of a table writes into table user_logins, which pg_mask is filling";
    assert_eq!(texts(&admin, "SELECT what FROM mallory.got").await, [refused]);
}

/// Nor does code of somebody's own table reach the session of a superuser who lifts tokens there.
#[tokio::test]
async fn code_of_another_table_reaches_nothing_of_the_session() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "anothers_table").await;
    mallory
        .batch_execute(
            "CREATE TABLE mallory.own (masked_ip text); INSERT INTO mallory.own VALUES (repeat('0', 64)); CREATE TABLE mallory.worked (what text);
             CREATE FUNCTION mallory.reaches() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE step text; BEGIN
                 PERFORM nextval('mallory.ran');
                 FOREACH step IN ARRAY ARRAY['SELECT pg_advisory_unlock(7)', 'SELECT pg_advisory_lock(8)', 'SET CONSTRAINTS ALL IMMEDIATE'] LOOP
                     BEGIN
                         EXECUTE step; INSERT INTO mallory.worked VALUES (step);
                     EXCEPTION WHEN insufficient_privilege THEN NULL; END;
                 END LOOP;
                 IF current_query() LIKE '%remask%' THEN INSERT INTO mallory.worked VALUES ('saw the statement'); END IF;
                 RETURN NEW; END $$;
             CREATE TRIGGER reaches BEFORE UPDATE ON mallory.own FOR EACH ROW EXECUTE FUNCTION mallory.reaches()",
        )
        .await
        .unwrap();
    admin.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    admin.batch_execute("CALL pgmask.remask('mallory.own')").await.unwrap();
    assert_eq!(times(&admin).await, 1);
    assert_eq!(texts(&admin, "SELECT what FROM mallory.worked").await, [""; 0]);
    assert_eq!(texts(&admin, "SELECT pg_advisory_unlock(7)::text").await, ["true"]);
}

/// What a foreign key has followed may lead to an ingestion, as anything may.
#[tokio::test]
async fn a_login_may_come_from_what_follows_a_key() {
    let admin = cluster().await.database("from_a_cascade").await.unwrap();
    admin
        .batch_execute(
            "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int REFERENCES parent ON UPDATE CASCADE);
             INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1);
             CREATE FUNCTION logs_in() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pgmask.ingest_login('{\"user_id\": \"u\"}'); RETURN NEW; END $$;
             CREATE TRIGGER logs_in BEFORE UPDATE ON child FOR EACH ROW EXECUTE FUNCTION logs_in(); UPDATE parent SET id = 2",
        )
        .await
        .unwrap();
    assert_eq!(texts(&admin, "SELECT user_id FROM user_logins").await, ["u"]);
}

/// pg_mask's own hint was to insert a row by hand, which a superuser alone could follow, and gave the superuser's rights to
/// such code.
#[tokio::test]
async fn what_the_server_says_is_shown_without_giving_it_rights() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "shown_errors").await;
    admin.batch_execute("GRANT TRIGGER ON user_logins TO mallory").await.unwrap();
    mallory
        .batch_execute(
            "CREATE FUNCTION mallory.fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.user_id = 'passes' THEN RETURN NEW; END IF;
                 BEGIN PERFORM set_config('role', 'none', false); ALTER ROLE mallory SUPERUSER; EXCEPTION WHEN OTHERS THEN END;
                 RAISE undefined_function USING MESSAGE = 'no such thing', DETAIL = current_user, HINT = NEW.user_id; END $$;
             CREATE TRIGGER fails BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.fails()",
        )
        .await
        .unwrap();
    let error = admin.batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"u\"}')").await.unwrap_err();
    let hint = error.as_db_error().unwrap().hint().unwrap();
    assert!(hint.contains("SELECT * FROM pgmask.try_login('{...}')"), "{hint}");
    let tried = async |user: &str| {
        let sql = format!(
            "SELECT concat_ws('; ', sqlstate, message, detail, hint, split_part(context, E'\\n', 1))
             FROM pgmask.try_login('{{\"user_id\": \"{user}\"}}')"
        );
        texts(&admin, &sql).await.remove(0)
    };
    let says = "42883; no such thing; pgmask_writer; u; PL/pgSQL function mallory.fails() line 4 at RAISE";
    assert_eq!(tried("u").await, says);
    assert_eq!(tried("passes").await, "00000; the table takes this login");
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, 0);
    assert_eq!(
        count(&admin, "SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND rolsuper").await,
        0
    );
    let forwarder = cluster.connect_as("pgmask_forwarder", "shown_errors").await.unwrap();
    let sql = "SELECT * FROM pgmask.try_login('{\"user_id\": \"passes\"}')";
    is_refused(&forwarder, sql).await;
}
