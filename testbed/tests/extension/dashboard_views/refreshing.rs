//! A refresh runs code of the login table's owner: with no right worth taking, and without a way to whoever refreshes or reads.

use crate::common::{count, message, texts};
use testbed::cluster::Cluster;

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
                                 WHEN c.relname = 'pg_am' THEN 'SELECT pg_clear_relation_stats(''logins'', ''stored_shared_ips'')' -- from 18 on
                                 ELSE 'SELECT pg_advisory_lock(1)' END
                         FROM pg_class AS c WHERE c.relname ~ '^pg_temp_' OR c.relname IN ('pg_class', 'pg_am') LOOP
                         BEGIN
                             PERFORM nextval('mallory.ran');
                             EXECUTE step; INSERT INTO mallory.worked VALUES (step);
                         EXCEPTION WHEN OTHERS THEN
                             IF SQLSTATE NOT IN ('42501', '42883') THEN INSERT INTO mallory.worked VALUES (step || SQLERRM); END IF; END;
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
