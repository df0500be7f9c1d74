//! What PostgreSQL and its languages keep for a session is not decided upon by code of the login table, nor what such code does by
//! what the session has made, set or opened.

use super::code_of_the_table::mallory;
use crate::common::{count, ingest, message, texts};
use testbed::cluster::Cluster;

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
             ALTER TABLE user_logins ADD CHECK (dba.short(locale) IS DISTINCT FROM 'no');
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

/// PostgreSQL goes on with what it keeps of an index that is open: an ingester who may read a table that code of the login table
/// writes had one of its own functions in the index, and run with the rights of that code.
#[tokio::test]
async fn what_the_session_has_open_is_not_used() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("open_index").await.unwrap();
    admin
        .batch_execute(
            "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC; CREATE SCHEMA its_own AUTHORIZATION pgmask_forwarder; GRANT USAGE ON SCHEMA its_own TO PUBLIC;
             CREATE FUNCTION app.part(v text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(v)';
             CREATE TABLE app.seen (user_id text); CREATE INDEX ON app.seen (app.part(user_id)); GRANT SELECT ON app.seen TO pgmask_forwarder;
             INSERT INTO app.seen VALUES ('a'), ('b');
             CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = app, pg_temp AS $$ BEGIN
                 INSERT INTO app.seen VALUES (NEW.user_id); RETURN NEW; END $$;
             CREATE TRIGGER note BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION app.note()",
        )
        .await
        .unwrap();
    let session = cluster.connect_as("pgmask_forwarder", "open_index").await.unwrap();
    session
        .batch_execute(
            "CREATE FUNCTION its_own.deed() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                 IF current_user <> 'pgmask_forwarder' THEN ALTER ROLE pgmask_forwarder CREATEDB; END IF; END $$;
             CREATE FUNCTION its_own.lower(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM its_own.deed(); RETURN v; END $$;
             BEGIN; SET LOCAL search_path = its_own, pg_catalog; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
             DECLARE c CURSOR FOR SELECT * FROM app.seen ORDER BY app.part(user_id); FETCH 1 FROM c; RESET search_path",
        )
        .await
        .unwrap();
    let ingest = "SELECT pgmask.ingest_login('{\"user_id\": \"u\"}')";
    let refused = message(&session.batch_execute(ingest).await.unwrap_err());
    assert!(refused.starts_with("42501 this session has seen_part_idx open"), "{refused}");
    let has_more = "SELECT count(*) FROM pg_roles WHERE rolname = 'pgmask_forwarder' AND rolcreatedb";
    assert_eq!(count(&admin, has_more).await, 0);
    // Nor a superuser's, which would go on with what code of the table had PostgreSQL keep.
    let loops = format!(
        "DO $$ DECLARE r record; BEGIN SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
             FOR r IN SELECT FROM app.seen ORDER BY app.part(user_id) LOOP PERFORM {}; END LOOP; END $$",
        ingest.trim_start_matches("SELECT ")
    );
    let refused = message(&admin.batch_execute(&loops).await.unwrap_err());
    assert!(refused.starts_with("42501 this session has seen_part_idx open"), "{refused}");
    // Once it is closed, and again in the same transaction.
    session.batch_execute("ROLLBACK").await.unwrap();
    session.batch_execute(&format!("BEGIN; {ingest}; {ingest}; COMMIT")).await.unwrap();
}

/// Code of the table was compiled anew for each message that the table refused, and what went with it was kept until the transaction
/// ended: whoever sends messages decided how much time and memory a batch took.
#[tokio::test]
async fn what_refuses_messages_is_compiled_once() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("compiled_once").await.unwrap();
    let statements = "IF length(NEW.user_id) > 500 THEN RAISE EXCEPTION 'long'; END IF; ".repeat(100);
    admin
        .batch_execute(&format!(
            "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC; CREATE TABLE app.audited (user_id text);
             CREATE FUNCTION app.checks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statements}
                 IF TG_TABLE_NAME = 'user_logins' THEN PERFORM app.audit(NEW.user_id); END IF; RETURN NEW; END $$;
             CREATE FUNCTION app.audit(pg_catalog.text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = app, pg_temp AS $$ BEGIN
                 INSERT INTO audited VALUES ($1); END $$;
             CREATE TRIGGER checks BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION app.checks();
             CREATE TRIGGER checks BEFORE INSERT ON app.audited FOR EACH ROW EXECUTE FUNCTION app.checks();
             ALTER TABLE user_logins ADD CONSTRAINT good CHECK (user_id NOT LIKE 'bad%')"
        ))
        .await
        .unwrap();
    let session = cluster.connect_as("pgmask_forwarder", "compiled_once").await.unwrap();
    let half_are_bad = |batch: usize| -> Vec<(String, String)> {
        let user = |n| if n % 2 == 0 { "bad" } else { "good" };
        (0..200).map(|n| (format!("{batch} {n}"), format!("{{\"user_id\": \"{} {n}\"}}", user(n)))).collect()
    };
    let memory = "SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts";
    admin.batch_execute("GRANT pg_read_all_stats TO pgmask_forwarder").await.unwrap();
    assert_eq!(ingest(&session, &half_are_bad(0)).await, [100, 0, 100]);
    let before = count(&session, memory).await;
    session.batch_execute("BEGIN").await.unwrap();
    for batch in 1..6 {
        assert_eq!(ingest(&session, &half_are_bad(batch)).await, [100, 0, 100]);
    }
    let more = count(&session, memory).await - before;
    session.batch_execute("COMMIT").await.unwrap();
    assert!(more < 8 << 20, "{more} bytes more");
}

/// A cursor that code of the table leaves is closed with an error, and until then it has its index open, with the predicate as that
/// code had it: rows that the session wrote next were missing in the index for good.
#[tokio::test]
async fn an_index_that_code_of_the_table_leaves_open_is_read_anew() {
    let cluster = Cluster::start(&["shared_preload_libraries = 'pg_mask'"]).await.unwrap();
    let admin = cluster.database("left_open").await.unwrap();
    cluster.apply_file("left_open", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE SCHEMA app; CREATE SCHEMA audit; CREATE TABLE audit.log (n bigint, tag text); INSERT INTO audit.log SELECT i, 'x' FROM generate_series(1, 100) AS i;
             CREATE FUNCTION audit.quiet() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT replace('nothing_', '_', '') $$;
             CREATE UNIQUE INDEX loud ON audit.log (n) WHERE tag <> audit.quiet();
             CREATE FUNCTION app.replace(pg_catalog.text, pg_catalog.text, pg_catalog.text) RETURNS pg_catalog.text IMMUTABLE LANGUAGE sql
                 AS $$ SELECT 'paid'::pg_catalog.text $$;
             CREATE FUNCTION app.opens() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
             DECLARE c refcursor; BEGIN
                 PERFORM set_config('search_path', 'app, pg_catalog', true), set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true);
                 OPEN c FOR EXECUTE 'SELECT n FROM audit.log WHERE n OPERATOR(pg_catalog.>) 10 AND tag OPERATOR(pg_catalog.<>) audit.quiet()';
                 MOVE c; END $$;
             CREATE FUNCTION app.leaves() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM app.opens(); RETURN new; END $$;
             CREATE FUNCTION app.passes() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                 IF current_user = 'pgmask_refresher' THEN PERFORM app.opens(); END IF; RETURN true; END $$;
             GRANT USAGE ON SCHEMA app TO PUBLIC; INSERT INTO user_logins (user_id) VALUES ('u');
             ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY s ON user_logins FOR SELECT USING (app.passes());
             CREATE POLICY i ON user_logins FOR INSERT WITH CHECK (true);
             CREATE FUNCTION app.tries() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN
                 PERFORM logins.refresh_dashboards(); RETURN '';
             EXCEPTION WHEN OTHERS THEN INSERT INTO audit.log VALUES (2001, 'paid'); RETURN sqlerrm; END $$;
             CREATE TRIGGER leaves BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION app.leaves()",
        )
        .await
        .unwrap();
    // An error that is caught leaves as little: tries() writes the same row where it has caught it.
    let pays = "INSERT INTO audit.log VALUES (2001, 'paid')";
    for fails in [super::INGEST, "SELECT app.tries()"] {
        let session = cluster.connect("left_open").await.unwrap();
        match session.batch_execute(fails).await {
            Err(left) => {
                let left = message(&left);
                assert!(left.starts_with("42501 code of the table leaves a cursor open"), "{left}");
                session.batch_execute(pays).await.unwrap();
            }
            Ok(()) => assert_eq!(count(&admin, "SELECT count(*) FROM audit.log WHERE tag = 'paid'").await, 1),
        }
        let twice = message(&session.batch_execute(pays).await.unwrap_err());
        assert!(twice.starts_with("23505 "), "{twice}");
        admin.batch_execute("DELETE FROM audit.log WHERE n = 2001").await.unwrap();
    }
    let said = texts(&admin, "SELECT app.tries()").await.remove(0);
    assert!(said.contains("leaves a cursor open"), "{said}");
}
