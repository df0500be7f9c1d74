//! Code of the login table does not run in a session that has called, or is in the midst of, what would decide on it.

use super::INGEST;
use crate::common::{count, message, texts};
use testbed::cluster::Cluster;

/// PostgreSQL looks up functions of range types, of operator classes and of casts once for a session. Code of the table had one compiled
/// by the way of the look-up that whoever's session it was had made, and the other way round.
#[tokio::test]
async fn what_a_session_has_looked_up_for_good_is_not_used() {
    let cluster = Cluster::start(&["shared_preload_libraries = 'pg_mask'"]).await.unwrap();
    let admin = cluster.database("looked_up").await.unwrap();
    admin
        .batch_execute(
            "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC;
             CREATE FUNCTION passes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION passes();
             CREATE FUNCTION app.difference(x text, y text) RETURNS float8 LANGUAGE plpgsql STRICT IMMUTABLE AS $$ DECLARE a text := x; BEGIN RETURN length(a) - length(y); END $$;
             CREATE TYPE app.versions AS RANGE (subtype = text, subtype_diff = app.difference, collation = \"C\");
             CREATE TYPE app.code AS (c integer);
             CREATE FUNCTION app.number(app.code) RETURNS integer LANGUAGE sql STRICT IMMUTABLE SECURITY DEFINER AS 'SELECT $1.c';
             CREATE CAST (app.code AS integer) WITH FUNCTION app.number AS IMPLICIT;
             CREATE FUNCTION app.compares(x app.code, y app.code) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN x.c - y.c; END';
             CREATE FUNCTION app.less(x app.code, y app.code) RETURNS boolean LANGUAGE sql IMMUTABLE SET DateStyle = 'ISO, YMD' AS 'SELECT x.c < y.c';
             CREATE OPERATOR app.< (FUNCTION = app.less, LEFTARG = app.code, RIGHTARG = app.code);
             CREATE OPERATOR CLASS app.codes FOR TYPE app.code USING btree AS OPERATOR 1 app.<, FUNCTION 1 app.compares(app.code, app.code);
             CREATE FUNCTION app.is_short(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN length($1) < 9; END';
             CREATE DOMAIN app.short AS text CHECK (app.is_short(VALUE));
             CREATE ROLE super LOGIN SUPERUSER; GRANT ALL ON ALL FUNCTIONS IN SCHEMA app TO PUBLIC",
        )
        .await
        .unwrap();
    let ingest = "SELECT pgmask.ingest_login('{\"user_id\": \"u\", \"ip\": \"192.0.2.1\"}')";
    let uses = [
        ("SELECT app.versions('1', '2') @> '1.5'::text", Some("difference()")),
        ("SELECT ROW(1)::app.code::integer", Some("number()")),
        ("SELECT ROW(1)::app.code OPERATOR(app.<) ROW(2)::app.code", Some("less()")),
        ("SELECT app.compares(ROW(1), ROW(2))", Some("compares()")),
        ("SELECT 'x'::app.short", None),
    ];
    for (used, named) in uses {
        for role in ["super", "pgmask_forwarder"] {
            let session = cluster.connect_as(role, "looked_up").await.unwrap();
            session.batch_execute(ingest).await.unwrap();
            session.batch_execute(used).await.unwrap();
            match (role, named) {
                ("super", None) => session.batch_execute(ingest).await.unwrap(),
                _ => {
                    let refused = message(&session.batch_execute(ingest).await.unwrap_err());
                    let expected = format!("42501 this session has used {}", named.unwrap_or("is_short()"));
                    assert!(refused.starts_with(&expected), "{role}, {used}: {refused}");
                }
            }
        }
    }
    // A path of their own is no help: temporary types come first in it, and not every role may look into each of its schemas.
    admin
        .batch_execute(
            "ALTER FUNCTION app.difference SET search_path = pg_catalog; ALTER FUNCTION app.number SET search_path = pg_catalog;
             ALTER FUNCTION app.less SET search_path = pg_catalog; ALTER FUNCTION app.compares SET search_path = pg_catalog",
        )
        .await
        .unwrap();
    for (used, named) in [
        ("SELECT app.difference('1', '2')", "difference()"),
        ("SELECT ROW(1)::app.code::integer", "number()"),
        ("SELECT ROW(1)::app.code OPERATOR(app.<) ROW(2)::app.code", "less()"),
        ("SELECT app.compares(ROW(1), ROW(2))", "compares()"),
    ] {
        let session = cluster.connect_as("pgmask_forwarder", "looked_up").await.unwrap();
        session.batch_execute(used).await.unwrap();
        let refused = message(&session.batch_execute(ingest).await.unwrap_err());
        assert!(refused.starts_with(&format!("42501 this session has used {named}")), "{used}: {refused}");
    }
}

/// Whatever else PostgreSQL keeps: a session that has called functions which look names up in its search path runs no code of the
/// table, but for a superuser's.
#[tokio::test]
async fn a_session_that_has_called_others_functions_runs_no_code_of_the_table() {
    refuses_what_has_called("shared_preload_libraries = 'pg_mask'").await;
}

#[tokio::test]
async fn the_same_where_each_session_loads_the_library_as_it_begins() {
    refuses_what_has_called("session_preload_libraries = 'pg_mask'").await;
}

async fn refuses_what_has_called(loads: &str) {
    let cluster = Cluster::start(&[loads]).await.unwrap();
    let admin = cluster.database("called").await.unwrap();
    admin
        .batch_execute(
            "CREATE FUNCTION passes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE FUNCTION in_any_path() RETURNS integer LANGUAGE sql AS 'SELECT 1 LIMIT 1';
             CREATE FUNCTION in_its_own() RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN RETURN 1; END $$;
             CREATE ROLE watches LOGIN IN ROLE pgmask_operator, pg_monitor; GRANT USAGE ON SCHEMA pgmask TO watches",
        )
        .await
        .unwrap();
    cluster.apply_file("called", "05_dashboards.sql").unwrap();
    let ingest = "SELECT pgmask.ingest_login('{\"user_id\": \"u\"}')";
    let session = cluster.connect_as("pgmask_forwarder", "called").await.unwrap();
    session.batch_execute(&format!("SELECT in_any_path(); {ingest}")).await.unwrap(); // no code on the table
    let watches = cluster.connect_as("watches", "called").await.unwrap();
    let older = "SELECT state || ': ' || coalesce(hint, '') FROM pgmask.health WHERE item = 'older_tokens'";
    watches.batch_execute("SELECT in_any_path()").await.unwrap();
    assert_eq!(texts(&watches, older).await, ["ok: "]);
    admin
        .batch_execute("CREATE TRIGGER t BEFORE INSERT OR UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION passes(); SELECT pgmask.rotate_key()")
        .await
        .unwrap();
    let refresh = "SELECT logins.refresh_dashboards()";
    for (role, work) in [
        ("pgmask_forwarder", ingest),
        ("watches", "CALL pgmask.remask('public.user_logins')"),
        ("watches", refresh),
    ] {
        let session = cluster.connect_as(role, "called").await.unwrap();
        session.batch_execute("SELECT in_its_own()").await.unwrap();
        session.batch_execute(work).await.unwrap();
        session.batch_execute(work).await.unwrap();
        session.batch_execute("SELECT in_any_path()").await.unwrap();
        let refused = message(&session.batch_execute(work).await.unwrap_err());
        assert!(refused.starts_with("42501 this session has used in_any_path()"), "{work}: {refused}");
    }
    let by_itself = "failed: Ask by itself, in a session that has made and called nothing else.";
    assert_eq!(texts(&watches, older).await, [by_itself]);
    admin.batch_execute(&format!("SELECT in_any_path(); {ingest}; {refresh}")).await.unwrap();
    // What PostgreSQL looks up for good counts for superusers as well, where code is run for whoever reads: not by triggers, but in
    // tables that inherit, for example.
    let cast = "CREATE TYPE code AS (n integer); CREATE FUNCTION number(code) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1.n';
        CREATE CAST (code AS integer) WITH FUNCTION number AS IMPLICIT; SELECT ROW(1)::code::integer";
    admin.batch_execute(&format!("{cast}; {refresh}")).await.unwrap();
    for (code, away) in [
        (
            "CREATE TABLE older () INHERITS (user_logins)",
            "ALTER TABLE older NO INHERIT user_logins; ANALYZE user_logins",
        ),
        (
            "ALTER TABLE user_logins ADD CONSTRAINT c CHECK (user_id <> 'nobody')",
            "ALTER TABLE user_logins DROP CONSTRAINT c",
        ),
        ("CREATE INDEX i ON user_logins (locale) WHERE locale <> 'x'", "DROP INDEX i"),
        (
            "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE user_logins DISABLE ROW LEVEL SECURITY",
        ),
        ("CREATE STATISTICS st ON lower(locale), user_id FROM user_logins", "DROP STATISTICS st"),
    ] {
        admin.batch_execute(code).await.unwrap();
        let refused = message(&admin.batch_execute(refresh).await.unwrap_err());
        assert!(refused.starts_with("42501 this session has used number()"), "{code}: {refused}");
        for statement in away.split("; ") {
            admin.batch_execute(statement).await.unwrap();
        }
    }
    admin.batch_execute(refresh).await.unwrap();
}

/// In maintenance a superuser's session runs code of whoever owns what is maintained. Nothing is taken in or refreshed there.
#[tokio::test]
async fn nothing_is_taken_in_in_maintenance() {
    let cluster =
        Cluster::start(&["shared_preload_libraries = 'pg_mask'", "autovacuum = off"]).await.unwrap();
    let admin = cluster.database("maintained").await.unwrap();
    cluster.apply_file("maintained", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE FUNCTION passes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION passes();
             CREATE ROLE ning LOGIN IN ROLE pgmask_ingester, pgmask_operator; CREATE SCHEMA AUTHORIZATION ning",
        )
        .await
        .unwrap();
    let ning = cluster.connect_as("ning", "maintained").await.unwrap();
    ning.batch_execute(
        "CREATE TABLE ning.t (x text); INSERT INTO ning.t VALUES ('SELECT pgmask.ingest_login(''{\"user_id\": \"u\"}'')'), ('SELECT logins.refresh_dashboards()');
         CREATE FUNCTION ning.tries(text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN EXECUTE $1; RAISE LOG 'done: %', $1; RETURN $1;
             EXCEPTION WHEN OTHERS THEN IF current_user <> session_user THEN RAISE LOG '% %', $1, SQLERRM; END IF; RETURN $1; END $$;
         CREATE FUNCTION ning.f(text) RETURNS text IMMUTABLE LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
             IF current_setting('ning.tries', true) = 'on' THEN RETURN ning.tries($1); END IF; RETURN $1; END $$;
         CREATE INDEX ON ning.t (ning.f(x))",
    )
    .await
    .unwrap();
    admin.batch_execute("SET ning.tries = on; ANALYZE ning.t").await.unwrap();
    let log = cluster.log();
    assert_eq!(log.matches("code of tables is not run in the midst of maintenance").count(), 2, "{log}");
    assert!(!log.contains("LOG:  done: "), "{log}");
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, 0);
}

/// What an event trigger looks up as somebody tries a REFRESH that is not for them counts for the session like all that it calls: it could
/// then decide on that, and code of the login table used it with a superuser's rights.
#[tokio::test]
async fn what_a_refresh_that_is_refused_has_looked_up_counts() {
    let cluster = Cluster::start(&["shared_preload_libraries = 'pg_mask'"]).await.unwrap();
    let admin = cluster.database("not_theirs").await.unwrap();
    cluster.apply_file("not_theirs", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE ROLE does_both LOGIN IN ROLE pgmask_operator, pgmask_ingester; CREATE SCHEMA w AUTHORIZATION does_both;
             CREATE SCHEMA audit; GRANT USAGE ON SCHEMA audit TO PUBLIC;
             CREATE FUNCTION audit.diff(x time, y time) RETURNS float8 LANGUAGE plpgsql STRICT IMMUTABLE
                 AS 'DECLARE seconds float8 := EXTRACT(EPOCH FROM (x - y)); BEGIN RETURN seconds; END';
             CREATE TYPE audit.timerange AS RANGE (subtype = time, subtype_diff = audit.diff);
             CREATE FUNCTION audit.not_at_lunch() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN
                 IF localtime <@ audit.timerange('12:00', '12:00') THEN RAISE 'lunch'; END IF; END $$;
             CREATE EVENT TRIGGER not_at_lunch ON ddl_command_start EXECUTE FUNCTION audit.not_at_lunch();
             CREATE FUNCTION audit.notes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER notes AFTER INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION audit.notes()",
        )
        .await
        .unwrap();
    let session = cluster.connect_as("does_both", "not_theirs").await.unwrap();
    for refresh in ["", "CONCURRENTLY "] {
        let refresh = format!("REFRESH MATERIALIZED VIEW {refresh}logins.stored_logins_by_day");
        let refused = message(&session.batch_execute(&refresh).await.unwrap_err());
        let expected = "42501 permission denied for materialized view logins.stored_logins_by_day";
        assert!(refused.starts_with(expected), "{refused}");
    }
    session
        .batch_execute(
            "SET search_path = w, pg_catalog; CREATE DOMAIN w.float8 AS pg_catalog.float8;
             CREATE TEMPORARY TABLE mine (h audit.timerange); CREATE INDEX ON mine USING gist (h);
             INSERT INTO mine SELECT audit.timerange(time '00:00' + i * interval '1 minute', time '01:00' + (i + i % 7) * interval '1 minute')
             FROM generate_series(1, 1000) AS i; DROP TABLE mine",
        )
        .await
        .unwrap();
    let refused = message(&session.batch_execute(INGEST).await.unwrap_err());
    assert!(refused.starts_with("42501 this session has "), "{refused}");
    assert!(refused.contains("diff()"), "{refused}");
}
