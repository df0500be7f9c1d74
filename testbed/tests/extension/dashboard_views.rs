//! sql/05_dashboards.sql: stored results for dashboards, with no right worth taking.

mod event_triggers;
mod refreshing;

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
             ALTER DATABASE own_types OWNER TO mallory; ALTER TABLE user_logins OWNER TO mallory; SET ROLE mallory;
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
