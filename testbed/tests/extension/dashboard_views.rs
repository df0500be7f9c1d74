//! sql/05_dashboards.sql: stored results for dashboards, with no right worth taking.

use crate::common::{cluster, count, message, texts};
use testbed::cluster::Cluster;

const LOGINS: &str = "INSERT INTO user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
    SELECT 'user ' || n % 7, (ARRAY['ios', NULL])[n % 2 + 1], mask_pii('192.0.2.' || n % 5), mask_pii('device ' || n % 11), 'DE',
           1000000, '2026-11-01'::date + n % 3 FROM generate_series(1, 100) AS n;
    UPDATE user_logins SET masked_ip_network = mask_network('192.0.2.0')";

const STORED: [&str; 6] = [
    "shared_ips",
    "shared_devices",
    "shared_networks",
    "logins_by_day",
    "version_adoption",
    "new_devices_by_day",
];

/// How many rows a dashboard and its view do not have in common.
fn differ(view: &str) -> String {
    format!(
        "SELECT count(*) FROM ((TABLE logins.{view} EXCEPT ALL TABLE logins.dashboard_{view})
             UNION ALL (TABLE logins.dashboard_{view} EXCEPT ALL TABLE logins.{view})) AS d"
    )
}

#[tokio::test]
async fn dashboards_show_what_was_so_when_they_were_refreshed() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("dashboards").await.unwrap();
    cluster.apply_file("dashboards", "04_networks.sql").unwrap();
    admin.batch_execute(LOGINS).await.unwrap();
    for _ in 0..2 {
        cluster.apply_file("dashboards", "05_dashboards.sql").unwrap();
    }
    admin
        .batch_execute(
            "CREATE ROLE ana LOGIN IN ROLE pgmask_analyst; CREATE ROLE ops LOGIN IN ROLE pgmask_operator;
             CREATE ROLE other LOGIN IN ROLE pgmask_ingester",
        )
        .await
        .unwrap();
    let analyst = cluster.connect_as("ana", "dashboards").await.unwrap();
    let operator = cluster.connect_as("ops", "dashboards").await.unwrap();
    let other = cluster.connect_as("other", "dashboards").await.unwrap();
    for view in STORED {
        assert!(
            count(&analyst, &format!("SELECT count(*) FROM logins.dashboard_{view}")).await > 0,
            "{view}"
        );
        assert_eq!(count(&analyst, &differ(view)).await, 0, "{view}");
    }
    // What is stored has tokens of the generation before; what is shown does not.
    admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    for view in STORED {
        assert_eq!(count(&analyst, &differ(view)).await, 0, "after a rotation: {view}");
    }
    let is_found = "SELECT count(*) FROM logins.dashboard_shared_ips WHERE masked_ip = mask_pii('192.0.2.1')";
    assert_eq!(count(&analyst, is_found).await, 1);
    admin.batch_execute(LOGINS).await.unwrap();
    for view in ["shared_ips", "shared_devices", "shared_networks", "logins_by_day", "version_adoption"] {
        assert!(count(&analyst, &differ(view)).await > 0, "shows logins that came later: {view}");
    }
    // The operator refreshes and reads nothing; nobody else refreshes.
    let age = "SELECT refreshed_at::text FROM logins.dashboard_refresh";
    let before = texts(&analyst, age).await;
    operator.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
    assert!(texts(&analyst, age).await > before);
    assert_eq!(count(&admin, "SELECT count(*) FROM logins.dashboard_refresh").await, 1);
    // A refresh writes no table: its triggers would be a superuser's code, whoever got the right to make them.
    let tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'logins'::regnamespace AND relkind NOT IN ('m', 'v', 'i')";
    assert_eq!(texts(&admin, tables).await, [""; 0]);
    for view in STORED {
        assert_eq!(count(&analyst, &differ(view)).await, 0, "refreshed: {view}");
    }
    for (client, sql) in [
        (&operator, "TABLE logins.dashboard_shared_ips"),
        (&operator, "TABLE logins.stored_shared_ips"),
        (&analyst, "SELECT logins.refresh_dashboards()"),
        (&analyst, "REFRESH MATERIALIZED VIEW logins.stored_shared_ips"),
        (&analyst, "DROP MATERIALIZED VIEW logins.stored_shared_ips"),
        (&analyst, "REFRESH MATERIALIZED VIEW logins.stored_when"),
        (&other, "SELECT logins.refresh_dashboards()"),
        (&other, "TABLE logins.stored_shared_ips"),
    ] {
        let error = client.batch_execute(sql).await.expect_err(sql);
        assert!(message(&error).starts_with("42501 "), "{sql}: {error:?}");
    }
}

/// A refresh evaluates code of the table's owner: as a superuser, who calls it, that would be a way up.
#[tokio::test]
async fn a_refresh_has_no_right_worth_taking() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("refresh").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE mallory LOGIN; CREATE SCHEMA AUTHORIZATION mallory; CREATE SEQUENCE mallory.ran; GRANT ALL ON mallory.ran TO PUBLIC;
             GRANT USAGE ON SCHEMA mallory TO PUBLIC; ALTER TABLE user_logins OWNER TO mallory;
             INSERT INTO user_logins (user_id, masked_ip) VALUES ('a', 'x'), ('b', 'x')",
        )
        .await
        .unwrap();
    cluster.apply_file("refresh", "05_dashboards.sql").unwrap();
    let shown = "SELECT count(*) FROM logins.dashboard_shared_ips";
    assert_eq!(count(&admin, shown).await, 1);
    let mallory = cluster.connect_as("mallory", "refresh").await.unwrap();
    mallory
        .batch_execute(
            "CREATE FUNCTION mallory.climb() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM nextval('mallory.ran');
                 BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
                 BEGIN EXECUTE 'GRANT pgmask_recoverer TO mallory'; EXCEPTION WHEN OTHERS THEN NULL; END;
                 RETURN true; END $$;
             ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY",
        )
        .await
        .unwrap();
    // Row level security without a policy for the role that refreshes: nothing is stored.
    admin.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
    assert_eq!(count(&admin, shown).await, 0);
    mallory.batch_execute("CREATE POLICY climbs ON user_logins USING (mallory.climb())").await.unwrap();
    admin.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
    assert_eq!(count(&admin, shown).await, 1);
    assert!(count(&admin, "SELECT last_value FROM mallory.ran WHERE is_called").await > 0);
    let taken = "SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND (rolsuper OR pg_has_role(oid, 'pgmask_recoverer', 'MEMBER'))";
    assert_eq!(count(&admin, taken).await, 0);
    let owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'logins'::regnamespace AND relkind = 'm'";
    assert_eq!(texts(&admin, owners).await, ["pgmask_refresher"]);
}

/// What belongs to the role that refreshes is its to change, and so was its code's: statistics with a function of the table
/// owner's ran that with the rights of whoever read the dashboard.
#[tokio::test]
async fn a_refresh_leaves_no_code_for_readers() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("planted").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE mallory LOGIN; CREATE SCHEMA AUTHORIZATION mallory; GRANT ALL ON SCHEMA mallory TO PUBLIC; ALTER TABLE user_logins OWNER TO mallory;
             INSERT INTO user_logins (user_id, masked_ip) SELECT 'u' || n, 'x' FROM generate_series(1, 9) AS n",
        )
        .await
        .unwrap();
    cluster.apply_file("planted", "05_dashboards.sql").unwrap();
    let mallory = cluster.connect_as("mallory", "planted").await.unwrap();
    mallory
        .batch_execute(
            "CREATE TABLE mallory.tried (command text, refused boolean); GRANT ALL ON mallory.tried TO PUBLIC;
             CREATE FUNCTION mallory.small(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)';
             CREATE FUNCTION mallory.plants() RETURNS boolean LANGUAGE plpgsql AS $$ DECLARE command text; BEGIN
                 IF current_user <> 'pgmask_refresher' OR EXISTS (SELECT FROM mallory.tried) THEN RETURN true; END IF;
                 FOREACH command IN ARRAY ARRAY[
                     'CREATE STATISTICS mallory.planted ON mallory.small(masked_ip), users FROM logins.stored_shared_ips',
                     'CREATE INDEX ON logins.stored_version_adoption (mallory.small(day::text))',
                     'ALTER MATERIALIZED VIEW logins.stored_shared_ips OWNER TO mallory', 'DROP MATERIALIZED VIEW logins.stored_shared_ips CASCADE',
                     'ALTER TABLE logins.stored_shared_ips OWNER TO mallory', 'GRANT SELECT ON logins.stored_shared_ips TO mallory', 'CREATE TABLE mallory.taken (n int)', 'ALTER ROLE pgmask_refresher SET work_mem = 64',
                     'CREATE FUNCTION mallory.of_refresher() RETURNS int LANGUAGE sql AS ''SELECT 1''', 'COMMENT ON MATERIALIZED VIEW logins.stored_shared_ips IS ''mine'''] LOOP
                     BEGIN
                         EXECUTE command;
                         INSERT INTO mallory.tried VALUES (command, false);
                     EXCEPTION WHEN insufficient_privilege THEN INSERT INTO mallory.tried VALUES (command, true); END;
                 END LOOP;
                 RETURN true; END $$;
             CREATE FUNCTION mallory.plants_early() RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN mallory.plants(); END $$;
             ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY plants ON user_logins USING (mallory.plants())",
        )
        .await
        .unwrap();
    // In sessions without the library: as the function refreshes, by hand, and by code that the planner runs already.
    let refreshes =
        ["SELECT logins.refresh_dashboards()", "REFRESH MATERIALIZED VIEW logins.stored_shared_ips"];
    for policy in ["mallory.plants()", "mallory.plants_early()"] {
        mallory.batch_execute(&format!("ALTER POLICY plants ON user_logins USING ({policy})")).await.unwrap();
        for refresh in refreshes {
            admin.batch_execute("TRUNCATE mallory.tried").await.unwrap();
            cluster.connect("planted").await.unwrap().batch_execute(refresh).await.unwrap();
            let all = "SELECT command FROM mallory.tried WHERE NOT refused";
            assert_eq!(texts(&admin, all).await, [""; 0], "{policy}, {refresh}");
            assert_eq!(count(&admin, "SELECT count(*) FROM mallory.tried").await, 10, "{policy}, {refresh}");
        }
    }
    assert_eq!(count(&admin, "SELECT count(*) FROM logins.dashboard_shared_ips").await, 1);
    let fresh = cluster.connect("planted").await.unwrap();
    // What is there all the same is found.
    for (made, dropped) in [
        (
            "CREATE STATISTICS mallory.planted ON mallory.small(masked_ip), users FROM logins.stored_shared_ips",
            "DROP STATISTICS mallory.planted",
        ),
        (
            "CREATE INDEX planted ON logins.stored_shared_ips (mallory.small(masked_ip))",
            "DROP INDEX logins.planted",
        ),
    ] {
        admin.batch_execute(made).await.unwrap();
        if made.starts_with("CREATE STATISTICS") {
            admin.batch_execute("ALTER STATISTICS mallory.planted OWNER TO pgmask_refresher").await.unwrap();
        }
        let refused = message(&fresh.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap_err());
        assert!(refused.contains("planted, which sql/05_dashboards.sql did not make"), "{refused}");
        admin.batch_execute(dropped).await.unwrap();
    }
    fresh.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
}

/// Rights are looked at when a cursor is opened, so whoever called could fetch from it what only pgmask_refresher may have.
#[tokio::test]
async fn a_refresh_leaves_no_cursor_open() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("left_open").await.unwrap();
    cluster.apply_file("left_open", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE ROLE mallory LOGIN IN ROLE pgmask_operator; CREATE SCHEMA AUTHORIZATION mallory; GRANT ALL ON SCHEMA mallory TO PUBLIC;
             ALTER TABLE user_logins OWNER TO mallory; INSERT INTO user_logins (user_id, masked_ip) VALUES ('a', 'x'), ('b', 'x')",
        )
        .await
        .unwrap();
    let mallory = cluster.connect_as("mallory", "left_open").await.unwrap();
    mallory
        .batch_execute(
            "CREATE FUNCTION mallory.opens() RETURNS boolean LANGUAGE plpgsql AS $$ DECLARE c refcursor := 'left'; BEGIN
                 IF current_user = 'pgmask_refresher' AND NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'left') THEN
                     OPEN c FOR SELECT pgmask.mask_generation('x'); END IF;
                 RETURN true; END $$;
             ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY opens ON user_logins USING (mallory.opens())",
        )
        .await
        .unwrap();
    let refused = message(&mallory.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap_err());
    assert!(refused.starts_with("42501 code of the table leaves a cursor open"), "{refused}");
    // Nor does it close one of the caller's, to open its own under the name.
    mallory
        .batch_execute(
            "CREATE OR REPLACE FUNCTION mallory.opens() RETURNS boolean LANGUAGE plpgsql AS $$ DECLARE c refcursor := 'own'; BEGIN
                 IF current_user = 'pgmask_refresher' THEN
                     BEGIN CLOSE c; OPEN c FOR SELECT 'exchanged'; EXCEPTION WHEN OTHERS THEN NULL; END; END IF;
                 RETURN true; END $$;
             BEGIN; DECLARE own CURSOR FOR SELECT 'of the caller'; SELECT logins.refresh_dashboards()",
        )
        .await
        .unwrap();
    assert_eq!(texts(&mallory, "FETCH own").await, ["of the caller"]);
    mallory.batch_execute("COMMIT").await.unwrap();
}

/// Code of the login table's owner runs as the role that the new content belongs to, and put rows of its own into it; nor does
/// it reach what the session of whoever refreshes holds.
#[tokio::test]
async fn a_refresh_stores_what_its_query_gives() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("stores_more").await.unwrap();
    cluster.apply_file("stores_more", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE ROLE mallory LOGIN; CREATE SCHEMA AUTHORIZATION mallory; GRANT USAGE ON SCHEMA mallory TO PUBLIC;
             CREATE TABLE mallory.worked (what text); GRANT INSERT ON mallory.worked TO PUBLIC; CREATE SEQUENCE mallory.ran; GRANT ALL ON mallory.ran TO PUBLIC;
             INSERT INTO user_logins (user_id, masked_ip) VALUES ('a', 'x'), ('b', 'x');
             CREATE FUNCTION mallory.adds() RETURNS boolean LANGUAGE plpgsql AS $$ DECLARE step text; BEGIN
                 IF current_user = 'pgmask_refresher' THEN
                     FOR step IN SELECT CASE WHEN c.relname LIKE 'pg_temp%' THEN format('INSERT INTO %s DEFAULT VALUES', c.oid::regclass)
                                 ELSE 'SELECT pg_advisory_lock(1)' END
                         FROM pg_class AS c WHERE c.relname ~ '^pg_temp_' OR c.relname = 'pg_class' LOOP
                         BEGIN
                             PERFORM nextval('mallory.ran');
                             EXECUTE step; INSERT INTO mallory.worked VALUES (step);
                         EXCEPTION WHEN OTHERS THEN
                             IF SQLSTATE <> '42501' THEN INSERT INTO mallory.worked VALUES (step || SQLERRM); END IF; END;
                     END LOOP;
                 END IF;
                 RETURN true; END $$;
             ALTER TABLE user_logins OWNER TO mallory; SET ROLE mallory; ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY;
             CREATE POLICY adds ON user_logins USING (mallory.adds()); RESET ROLE",
        )
        .await
        .unwrap();
    for _ in 0..2 {
        admin.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
    }
    assert!(count(&admin, "SELECT last_value FROM mallory.ran").await > 20, "it ran");
    assert_eq!(texts(&admin, "SELECT DISTINCT what FROM mallory.worked").await, [""; 0]);
}

/// What it says is immutable runs before the new content is filled, which it owned: content of another shape ended the server.
#[tokio::test]
async fn code_changes_no_new_content() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("another_shape").await.unwrap();
    cluster.apply_file("another_shape", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE TABLE tried (what text); GRANT INSERT ON tried TO PUBLIC;
             INSERT INTO user_logins (user_id, masked_ip) VALUES ('a', 'x'), ('b', 'x');
             CREATE FUNCTION changes() RETURNS boolean LANGUAGE plpgsql AS $$ DECLARE step text; BEGIN
                 FOR step IN SELECT format(change, c.oid::regclass) FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid,
                         unnest(ARRAY['ALTER TABLE %s ALTER users TYPE text', 'DROP TABLE %s', 'ANALYZE %s']) AS change
                     WHERE current_user = 'pgmask_refresher' AND c.relname ~ '^pg_temp_[0-9]+$' AND a.attname = 'users' LOOP
                     BEGIN EXECUTE step; INSERT INTO public.tried VALUES ('did ' || step);
                     EXCEPTION WHEN OTHERS THEN INSERT INTO public.tried VALUES (SQLSTATE || split_part(step, ' ', 1)); END;
                 END LOOP;
                 RETURN true; END $$;
             CREATE FUNCTION says_immutable() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN public.changes(); END $$;
             ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY changes ON user_logins USING (says_immutable())",
        )
        .await
        .unwrap();
    for _ in 0..2 {
        admin.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
    }
    let tried = texts(&admin, "SELECT DISTINCT what FROM tried ORDER BY 1").await;
    assert_eq!(tried, ["42501ALTER", "42501ANALYZE", "42501DROP"]);
}

/// Nor does code with its owner's rights, which reached what the session of whoever refreshes holds.
#[tokio::test]
async fn a_refresh_gives_nothing_of_its_session_away() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("refreshers_session").await.unwrap();
    cluster.apply_file("refreshers_session", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE ROLE mallory LOGIN; CREATE SCHEMA AUTHORIZATION mallory; GRANT USAGE ON SCHEMA mallory TO PUBLIC; SET ROLE mallory;
             CREATE TABLE mallory.worked (what text); CREATE SEQUENCE mallory.ran;
             CREATE TABLE mallory.key (id int PRIMARY KEY); INSERT INTO mallory.key VALUES (1); GRANT REFERENCES ON mallory.key TO postgres;
             RESET ROLE; CREATE TABLE follows (id int REFERENCES mallory.key ON UPDATE CASCADE); INSERT INTO follows VALUES (1); SET ROLE mallory;
             CREATE FUNCTION mallory.reaches() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$ DECLARE step text; got text; BEGIN
                 PERFORM nextval('mallory.ran');
                 FOREACH step IN ARRAY ARRAY['SELECT pg_advisory_unlock(7)', 'SELECT pg_advisory_lock(8)', 'SELECT loread(0, 100)',
                     'SET CONSTRAINTS ALL IMMEDIATE', 'CREATE DOMAIN pg_temp.text AS pg_catalog.text', 'UPDATE mallory.key SET id = id + 1'] LOOP
                     BEGIN
                         EXECUTE step; INSERT INTO mallory.worked VALUES (step);
                     EXCEPTION WHEN insufficient_privilege THEN NULL; END;
                 END LOOP;
                 IF current_query() LIKE '%of the caller%' THEN INSERT INTO mallory.worked VALUES ('saw the statement'); END IF;
                 RETURN true; END $$;
             RESET ROLE; ALTER TABLE user_logins OWNER TO mallory; SET ROLE mallory; ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY;
             CREATE POLICY reaches ON user_logins USING (mallory.reaches()); RESET ROLE;
             INSERT INTO user_logins (user_id, masked_ip) VALUES ('a', 'x'), ('b', 'x')",
        )
        .await
        .unwrap();
    admin.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    // A stored result is refreshed in that way whoever asks for it.
    for refreshes in [
        "SELECT logins.refresh_dashboards()",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY logins.stored_shared_ips",
        "REFRESH MATERIALIZED VIEW logins.stored_shared_ips",
    ] {
        admin
            .batch_execute(&format!(
                "BEGIN; SELECT lo_open(lo_from_bytea(0, 'of the caller'), 393216); {refreshes}"
            ))
            .await
            .unwrap();
        let large_object = "SELECT convert_from(loread(0, 100), 'UTF8')";
        assert_eq!(texts(&admin, large_object).await, ["of the caller"], "{refreshes}");
        admin.batch_execute("COMMIT").await.unwrap();
    }
    assert!(count(&admin, "SELECT last_value FROM mallory.ran").await > 7, "it ran");
    assert_eq!(texts(&admin, "SELECT DISTINCT what FROM mallory.worked").await, [""; 0]);
    assert!(texts(&admin, "SELECT pg_advisory_unlock(7)::text").await == ["true"]);
}

/// Nor does a refresh have fewer guards where code of the table begins it, in the midst of an ingestion, or where it is what has
/// the library loaded.
#[tokio::test]
async fn a_refresh_is_guarded_however_it_begins() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("begins_oddly").await.unwrap();
    cluster.apply_file("begins_oddly", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE FUNCTION refreshes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                 REFRESH MATERIALIZED VIEW logins.stored_shared_ips; RETURN NEW; END $$;
             CREATE TRIGGER refreshes BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refreshes()",
        )
        .await
        .unwrap();
    let refused = message(
        &admin.batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"u\"}')").await.unwrap_err(),
    );
    assert!(refused.starts_with("42501 code of a table calls what runs code of tables itself"), "{refused}");
    admin
        .batch_execute(
            "DROP TRIGGER refreshes ON user_logins; INSERT INTO user_logins (user_id, masked_ip) VALUES ('a', 'x'), ('b', 'x');
             CREATE TABLE worked (what text);
             CREATE FUNCTION reaches() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$ DECLARE step text; BEGIN
                 PERFORM FROM pgmask.health; -- has pg_mask guard something else meanwhile
                 FOREACH step IN ARRAY ARRAY['SELECT pg_advisory_lock(8)', 'SET CONSTRAINTS ALL IMMEDIATE'] LOOP
                     BEGIN
                         EXECUTE step; INSERT INTO public.worked VALUES (step);
                     EXCEPTION WHEN insufficient_privilege THEN INSERT INTO public.worked VALUES ('refused'); END;
                 END LOOP;
                 RETURN true; END $$;
             ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY reaches ON user_logins USING (reaches())",
        )
        .await
        .unwrap();
    let fresh = cluster.connect("begins_oddly").await.unwrap();
    fresh.batch_execute("BEGIN; REFRESH MATERIALIZED VIEW logins.stored_shared_ips; REFRESH MATERIALIZED VIEW logins.stored_shared_devices; COMMIT").await.unwrap();
    assert_eq!(texts(&admin, "SELECT DISTINCT what FROM worked").await, ["refused"]);
    // It is over with the statement, whatever has rights of its own then.
    admin
        .batch_execute(
            "CREATE FUNCTION makes() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                 CREATE TABLE IF NOT EXISTS public.made (); PERFORM pg_advisory_xact_lock(8); END $$;
             CREATE MATERIALIZED VIEW other AS SELECT g, pgmask.mask_pii(g::text) AS token FROM generate_series(1, 9) AS g;
             CREATE UNIQUE INDEX ON other (g)",
        )
        .await
        .unwrap();
    for view in ["logins.stored_shared_ips", "CONCURRENTLY other"] {
        let fresh = cluster.connect("begins_oddly").await.unwrap();
        for statement in ["BEGIN", &format!("REFRESH MATERIALIZED VIEW {view}"), "SELECT makes()", "COMMIT"] {
            fresh.batch_execute(statement).await.unwrap();
        }
    }
    fresh
        .batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"u\"}'); SELECT pg_advisory_lock(8)")
        .await
        .unwrap();
}

/// An operator reads no row; code of the table's owner says and raises what it likes.
#[tokio::test]
async fn a_refresh_says_nothing_of_a_row() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("refresh_says").await.unwrap();
    cluster.apply_file("refresh_says", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE ROLE ops LOGIN IN ROLE pgmask_operator; INSERT INTO user_logins (user_id, masked_ip) VALUES ('secret', 'x');
             CREATE FUNCTION says(who text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                 RAISE NOTICE '%', who; RAISE INFO '%', who; RETURN who::text <> ''; END $$;
             CREATE FUNCTION fails(who text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN who::int > 0; END $$;
             ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY says ON user_logins USING (says(user_id::text))",
        )
        .await
        .unwrap();
    for (function, succeeds) in [("says", true), ("fails", false)] {
        admin
            .batch_execute(&format!("ALTER POLICY says ON user_logins USING ({function}(user_id::text))"))
            .await
            .unwrap();
        let mut psql = cluster.command("psql");
        psql.args([
            "--no-psqlrc",
            "--command",
            "SELECT logins.refresh_dashboards()",
            &cluster.url("ops", "refresh_says"),
        ]);
        let said = psql.output().unwrap();
        assert_eq!(said.status.success(), succeeds);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.contains("secret"), "{said}");
        assert_eq!(said.is_empty(), succeeds, "{said}");
    }
}

/// A DBA's log of commands has the text of a refresh, as of any other.
#[tokio::test]
async fn a_refresh_is_in_a_log_of_commands() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("refresh_logged").await.unwrap();
    cluster.apply_file("refresh_logged", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE TABLE commands (tag text NOT NULL, statement text NOT NULL);
             CREATE FUNCTION log_command() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                 INSERT INTO public.commands VALUES (tg_tag, current_query()); END $$;
             CREATE EVENT TRIGGER log_command ON ddl_command_end EXECUTE FUNCTION log_command()",
        )
        .await
        .unwrap();
    admin.batch_execute("REFRESH MATERIALIZED VIEW logins.stored_shared_ips").await.unwrap();
    admin.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
    let logged = "SELECT statement FROM commands WHERE tag = 'REFRESH MATERIALIZED VIEW' AND statement LIKE '% logins.stored_shared_ips'";
    let plain = "REFRESH MATERIALIZED VIEW logins.stored_shared_ips";
    let again = "REFRESH MATERIALIZED VIEW CONCURRENTLY logins.stored_shared_ips";
    assert_eq!(texts(&admin, logged).await, [plain, again]);
}

/// Sessions that refresh a view at once wait for each other in turn, as for any other materialized view.
#[tokio::test]
async fn refreshes_at_once_follow_each_other() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("refreshed_at_once").await.unwrap();
    cluster.apply_file("refreshed_at_once", "05_dashboards.sql").unwrap();
    let other = cluster.connect("refreshed_at_once").await.unwrap();
    let refresh = "REFRESH MATERIALIZED VIEW logins.stored_shared_ips";
    for _ in 0..50 {
        let (one, two) = tokio::join!(admin.batch_execute(refresh), other.batch_execute(refresh));
        one.unwrap();
        two.unwrap();
    }
}

/// Who may grant a role, or make a user mapping, does not change whose rights a refresh has, nor stop it.
#[tokio::test]
async fn a_refresh_has_no_rights_of_another_group() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("refreshers_groups").await.unwrap();
    cluster.apply_file("refreshers_groups", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR pgmask_refresher SERVER s;
             SELECT logins.refresh_dashboards(); CREATE ROLE team; GRANT team TO pgmask_refresher",
        )
        .await
        .unwrap();
    let refused = message(&admin.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap_err());
    assert!(refused.starts_with("42501 role pgmask_refresher is a member of team"), "{refused}");
}

/// ANALYZE, autovacuum's too, calls functions of a column's type, as who owns what is analysed, in a session that need not
/// have the library.
#[tokio::test]
async fn what_is_stored_is_of_types_of_postgresql() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("own_types").await.unwrap();
    admin
        .batch_execute(
            "DROP SCHEMA logins CASCADE; CREATE ROLE mallory LOGIN; CREATE SCHEMA AUTHORIZATION mallory;
             CREATE TABLE mallory.ran (role text); GRANT ALL ON mallory.ran TO PUBLIC; GRANT USAGE ON SCHEMA mallory TO PUBLIC;
             ALTER TABLE user_logins OWNER TO mallory; SET ROLE mallory;
             CREATE FUNCTION mallory.note() RETURNS void LANGUAGE sql AS 'INSERT INTO mallory.ran VALUES (current_user)';
             CREATE FUNCTION mallory.distance(integer, integer) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM mallory.note(); RETURN 1; END $$;
             CREATE TYPE mallory.span AS RANGE (subtype = integer, subtype_diff = mallory.distance);
             ALTER TABLE user_logins ALTER locale TYPE mallory.span USING '[1,9)'; RESET ROLE;
             INSERT INTO user_logins (user_id, locale, create_date)
                 SELECT 'u' || n, mallory.span(n, n + 9), '2026-11-01'::date + n FROM generate_series(1, 50) AS n",
        )
        .await
        .unwrap();
    for file in ["03_analyst_views.sql", "05_dashboards.sql"] {
        cluster.apply_file("own_types", file).unwrap();
    }
    let fresh = cluster.connect("own_types").await.unwrap();
    fresh.batch_execute("TRUNCATE mallory.ran; ANALYZE logins.stored_logins_by_day").await.unwrap();
    assert_eq!(texts(&admin, "SELECT role FROM mallory.ran").await, [""; 0]);
    let of_others = "SELECT a.attname::text FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        WHERE c.relowner = 'pgmask_refresher'::regrole AND a.atttypid >= 16384";
    assert_eq!(texts(&admin, of_others).await, [""; 0]);
    let shown = "SELECT locale FROM logins.dashboard_logins_by_day ORDER BY day LIMIT 1";
    assert_eq!(texts(&admin, shown).await, ["[1,10)"]);
}

#[tokio::test]
async fn what_another_role_made_is_refused() {
    let cluster = cluster().await;
    let client = cluster.database("dashboards_refused").await.unwrap();
    client
        .batch_execute(
            "DROP ROLE IF EXISTS boarder; CREATE ROLE boarder; GRANT CREATE ON SCHEMA logins TO boarder",
        )
        .await
        .unwrap();
    for (made, name, undo) in [
        (
            "VIEW logins.dashboard_refresh AS SELECT now() AS refreshed_at",
            "logins.dashboard_refresh",
            "VIEW logins.dashboard_refresh",
        ),
        (
            "VIEW logins.dashboard_shared_ips AS SELECT 1 AS x",
            "logins.dashboard_shared_ips",
            "VIEW logins.dashboard_shared_ips",
        ),
        (
            "FUNCTION logins.refresh_dashboards() RETURNS interval LANGUAGE sql AS 'SELECT NULL::interval'",
            "logins.refresh_dashboards()",
            "FUNCTION logins.refresh_dashboards()",
        ),
    ] {
        client.batch_execute(&format!("SET ROLE boarder; CREATE {made}; RESET ROLE")).await.unwrap();
        let refused = cluster.apply_file("dashboards_refused", "05_dashboards.sql").unwrap_err().to_string();
        assert!(refused.contains(&format!("{name} is there already and belongs to boarder")), "{refused}");
        client.batch_execute(&format!("DROP {undo}")).await.unwrap();
    }
    // The owner of the schema could exchange the function before the file calls it, as a superuser.
    client
        .batch_execute(
            "ALTER DATABASE dashboards_refused OWNER TO boarder; ALTER SCHEMA logins OWNER TO boarder",
        )
        .await
        .unwrap();
    let refused = cluster.apply_file("dashboards_refused", "05_dashboards.sql").unwrap_err().to_string();
    assert!(refused.contains("schema logins is there already and belongs to boarder"), "{refused}");
    client
        .batch_execute(
            "ALTER DATABASE dashboards_refused OWNER TO postgres; ALTER SCHEMA logins OWNER TO postgres",
        )
        .await
        .unwrap();
    cluster.apply_file("dashboards_refused", "05_dashboards.sql").unwrap();
    client.batch_execute("DROP OWNED BY boarder; DROP ROLE boarder").await.unwrap();
}

/// A restore without owners gives what is stored to whoever restores: a refresh did nothing from then on, and one by hand ran
/// code of the login table with that one's rights.
#[tokio::test]
async fn what_is_stored_is_given_back_to_its_role() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("dashboards_given").await.unwrap();
    cluster.apply_file("dashboards_given", "05_dashboards.sql").unwrap();
    for view in ["shared_ips", "when"] {
        let give = format!("ALTER MATERIALIZED VIEW logins.stored_{view} OWNER TO postgres");
        client.batch_execute(&give).await.unwrap();
        let refused = message(&client.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap_err());
        let expected = format!("55000 logins.stored_{view} belongs to role postgres");
        assert!(refused.starts_with(&expected), "{refused}");
        cluster.apply_file("dashboards_given", "05_dashboards.sql").unwrap();
        client.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
    }
}

/// A hash without a key can be made of any guess, so lifting one is a guess: it would be the table owner's, who could have
/// ten thousand tried in each hour by whoever refreshes.
#[tokio::test]
async fn a_refresh_tries_no_guess() {
    let cluster = Cluster::start(&["shared_preload_libraries = 'pg_mask'"]).await.unwrap();
    let admin = cluster.database("dashboards_of_hashes").await.unwrap();
    cluster.apply_file("dashboards_of_hashes", "04_networks.sql").unwrap();
    cluster.apply_file("dashboards_of_hashes", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE ROLE ops LOGIN IN ROLE pgmask_operator; CREATE ROLE mallory LOGIN; CREATE SCHEMA AUTHORIZATION mallory;
             GRANT USAGE ON SCHEMA mallory TO PUBLIC; ALTER TABLE user_logins OWNER TO mallory;
             INSERT INTO user_logins (user_id, masked_ip, create_date)
                 SELECT 'user ' || n, encode(sha256('192.0.2.1'), 'hex'), '2026-11-01' FROM generate_series(1, 3) AS n",
        )
        .await
        .unwrap();
    let operator = cluster.connect_as("ops", "dashboards_of_hashes").await.unwrap();
    // An operator is not shown what the server says, which may hold a row.
    let refused = message(&operator.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap_err());
    assert!(
        refused.starts_with("42501 logins.stored_") && refused.contains("could not be refreshed"),
        "{refused}"
    );
    {
        let refused = admin.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap_err();
        let refused = refused.as_db_error().unwrap();
        assert!(refused.message().contains("pgmask_refresher masks no value"), "{refused}");
        assert!(refused.hint().unwrap().contains("CALL pgmask.remask('public.user_logins')"), "{refused}");
    }
    admin.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
    let mallory = cluster.connect_as("mallory", "dashboards_of_hashes").await.unwrap();
    mallory
        .batch_execute(
            "CREATE TABLE mallory.tried (state text); GRANT INSERT ON mallory.tried TO PUBLIC;
             CREATE FUNCTION mallory.guesses() RETURNS boolean LANGUAGE plpgsql AS $$
             DECLARE guess text; token text; BEGIN
                 IF current_user = 'pgmask_refresher' THEN
                     FOREACH guess IN ARRAY ARRAY['public.mask_pii(''192.0.2.1''::text)', 'public.mask_pii(''192.0.2.1''::inet)',
                         'public.mask_pii(''192.0.2.1''::text, ''other'')', 'public.mask_network(''192.0.2.1'')',
                         'pgmask.current_mask(pg_catalog.encode(pg_catalog.sha256(''192.0.2.1''), ''hex''))'] LOOP
                         BEGIN
                             EXECUTE 'SELECT ' || guess INTO token;
                             INSERT INTO mallory.tried VALUES ('masked');
                         EXCEPTION WHEN insufficient_privilege THEN INSERT INTO mallory.tried VALUES ('refused'); END;
                     END LOOP;
                 END IF;
                 RETURN true; END $$;
             ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY guesses ON user_logins USING (mallory.guesses())",
        )
        .await
        .unwrap();
    for client in [&admin, &operator] {
        client.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
    }
    assert_eq!(texts(&admin, "SELECT DISTINCT state FROM mallory.tried").await, ["refused"]);
    let lifted = "SELECT count(*) FROM logins.dashboard_shared_ips WHERE masked_ip = mask_pii('192.0.2.1')";
    assert_eq!(count(&admin, lifted).await, 1);
}
