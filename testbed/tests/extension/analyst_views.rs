//! The views of sql/03_analyst_views.sql give what the same questions give on the plain data, at every moment of a rotation.

use crate::common::{cluster, count, texts};
use testbed::cluster::Cluster;
use tokio_postgres::Client;

/// Logins in the plain: few users, addresses and devices, so that many are shared, and values that are missing.
const PLAIN: &str = "CREATE TABLE plain AS
    SELECT 'user ' || nullif(n % 37, 0) AS user_id, (ARRAY['ios', 'android'])[n % 2 + 1] AS device_type,
           '192.0.2.' || nullif(n * 7 % 41, 0) AS ip, 'device ' || nullif(n / 12, 0) AS device_id,
           (ARRAY['DE', 'FR', NULL])[n % 3 + 1] AS locale, nullif(n % 5, 0) * 1001000 AS app_version,
           '2026-11-01'::date + n / 55 AS create_date
    FROM generate_series(1, 600) AS n
    UNION ALL SELECT 'alone', 'ios', '198.51.100.1', 'of one', 'DE', 96000, '2026-11-30'
    UNION ALL SELECT NULL, 'ios', '198.51.100.1', 'of one', 'DE', 96000, '2026-11-30'
    UNION ALL SELECT 'undated', 'ios', '198.51.100.2', NULL, 'DE', NULL, NULL";

/// Takes in the plain logins of some users, with the generation in use.
fn take_in(users: &str) -> String {
    format!(
        "INSERT INTO user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
         SELECT user_id, device_type, mask_pii(ip), mask_pii(device_id), locale, app_version, create_date
         FROM plain WHERE {users}"
    )
}

/// Each view, and the same question of the plain data, asked in the plainest way.
const QUESTIONS: [(&str, &str); 8] = [
    (
        "shared_ips",
        "SELECT mask_pii(ip), count(DISTINCT user_id), count(*), min(create_date), max(create_date)
         FROM plain WHERE ip IS NOT NULL GROUP BY ip HAVING count(DISTINCT user_id) > 1",
    ),
    (
        "shared_devices",
        "SELECT mask_pii(device_id), count(DISTINCT user_id), count(*), min(create_date), max(create_date)
         FROM plain WHERE device_id IS NOT NULL GROUP BY device_id HAVING count(DISTINCT user_id) > 1",
    ),
    (
        "users_with_many_ips",
        "SELECT user_id, count(DISTINCT ip), count(*), min(create_date), max(create_date)
         FROM plain WHERE user_id IS NOT NULL AND ip IS NOT NULL GROUP BY user_id HAVING count(DISTINCT ip) > 1",
    ),
    (
        "users_with_many_devices",
        "SELECT user_id, count(DISTINCT device_id), count(*), min(create_date), max(create_date)
         FROM plain WHERE user_id IS NOT NULL AND device_id IS NOT NULL GROUP BY user_id HAVING count(DISTINCT device_id) > 1",
    ),
    (
        "logins_by_day",
        "SELECT create_date, device_type, locale, app_version, app_version_text(app_version), count(*)
         FROM plain GROUP BY create_date, device_type, locale, app_version",
    ),
    (
        "version_adoption",
        "SELECT create_date, app_version, app_version_text(app_version), count(DISTINCT user_id), count(*),
                round(count(*)::numeric / (SELECT count(*) FROM plain AS d WHERE d.create_date IS NOT DISTINCT FROM p.create_date), 4)
         FROM plain AS p GROUP BY create_date, app_version",
    ),
    (
        "duplicate_events",
        "SELECT user_id, device_type, mask_pii(ip), mask_pii(device_id), locale, app_version, app_version_text(app_version),
                create_date, count(*)
         FROM plain GROUP BY user_id, device_type, ip, device_id, locale, app_version, create_date HAVING count(*) > 1",
    ),
    (
        "new_devices_by_day",
        "SELECT day, count(*) FROM (SELECT min(create_date) AS day FROM plain WHERE device_id IS NOT NULL GROUP BY device_id) AS d
         GROUP BY day",
    ),
];

/// Compares every view with its question; a duplicate that is sent makes one event of each kind at least.
async fn agree(client: &Client, moment: &str) {
    for (view, question) in QUESTIONS {
        let shown = count(client, &format!("SELECT count(*) FROM logins.{view}")).await;
        assert!(shown >= 5, "{moment}: {view} shows only {shown} rows");
        let differ = format!(
            "WITH asked AS ({question})
             SELECT count(*) FROM ((TABLE asked EXCEPT ALL TABLE logins.{view}) UNION ALL (TABLE logins.{view} EXCEPT ALL TABLE asked)) AS d"
        );
        assert_eq!(count(client, &differ).await, 0, "{moment}: {view}");
    }
}

#[tokio::test]
async fn views_agree_with_the_plain_data_at_every_moment_of_a_rotation() {
    // A keyring of its own: a rotation adds a key.
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("views").await.unwrap();
    client.batch_execute(PLAIN).await.unwrap();
    // Some logins are sent twice.
    client
        .batch_execute("INSERT INTO plain SELECT * FROM plain WHERE user_id IN ('user 3', 'user 8')")
        .await
        .unwrap();
    client.batch_execute(&take_in("user_id < 'user 2'")).await.unwrap();
    // What an older pipeline stored: plain hashes.
    client
        .batch_execute(
            "UPDATE user_logins SET masked_ip = encode(sha256(p.ip::bytea), 'hex')
             FROM plain AS p WHERE masked_ip = mask_pii(p.ip) AND user_logins.user_id = 'user 10'",
        )
        .await
        .unwrap();
    client.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    client.batch_execute(&take_in("user_id >= 'user 2' OR user_id IS NULL")).await.unwrap();
    let generations = "SELECT count(DISTINCT pgmask.mask_generation(masked_ip)) FROM user_logins";
    assert_eq!(count(&client, generations).await, 3);
    agree(&client, "two generations and plain hashes").await;
    client.batch_execute("SET enable_hashagg = off").await.unwrap();
    agree(&client, "by sorting").await;
    client
        .batch_execute("RESET enable_hashagg; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; ANALYZE user_logins")
        .await
        .unwrap();
    agree(&client, "in parallel").await;
    client.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
    assert_eq!(count(&client, generations).await, 1);
    agree(&client, "all lifted").await;
}

/// An analyst who is shown a part of the rows is shown what is shared in that part.
#[tokio::test]
async fn views_show_what_their_reader_may_see() {
    let cluster = cluster().await;
    let client = cluster.database("views_rows").await.unwrap();
    client
        .batch_execute(
            "INSERT INTO user_logins SELECT u, 'ios', mask_pii('192.0.2.' || n), mask_pii(n::text), l, 1, '2026-11-20'
             FROM (VALUES ('a', 'DE'), ('b', 'DE'), ('c', 'FR')) AS s(u, l), generate_series(1, 2) AS n;
             DROP ROLE IF EXISTS sees_a_part; CREATE ROLE sees_a_part LOGIN IN ROLE pgmask_analyst;
             ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY;
             CREATE POLICY part ON user_logins FOR SELECT TO sees_a_part USING (locale = 'DE')",
        )
        .await
        .unwrap();
    let users = "SELECT DISTINCT users::text FROM logins.shared_ips";
    assert_eq!(texts(&client, users).await, ["3"]);
    let analyst = cluster.connect_as("sees_a_part", "views_rows").await.unwrap();
    assert_eq!(texts(&analyst, users).await, ["2"]);
    let invokers =
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'logins'::regnamespace AND relkind = 'v'
        AND NOT coalesce(reloptions, '{}') @> '{security_invoker=true}'";
    assert_eq!(texts(&client, invokers).await, [""; 0]);
}

#[tokio::test]
async fn every_view_and_column_has_a_comment() {
    let cluster = cluster().await;
    let client = cluster.database("views_comments").await.unwrap();
    cluster.apply_file("views_comments", "04_networks.sql").unwrap();
    let all = "FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'logins'::regnamespace AND c.relkind IN ('v', 'm') AND a.attnum > 0";
    assert!(count(&client, &format!("SELECT count(DISTINCT c.oid) {all}")).await >= 9);
    let silent = format!(
        "SELECT format('%s.%s', c.relname, a.attname) {all}
         AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL)"
    );
    assert_eq!(texts(&client, &silent).await, [""; 0]);
    // A column has one type and one meaning, wherever it is.
    let several = format!(
        "SELECT a.attname::text {all} GROUP BY 1 HAVING count(DISTINCT col_description(c.oid, a.attnum)) > 1
         OR count(DISTINCT a.atttypid) > 1"
    );
    assert_eq!(texts(&client, &several).await, [""; 0]);
}

#[tokio::test]
async fn versions_that_are_stored_as_text_are_shown_as_they_are() {
    let cluster = cluster().await;
    let client = cluster.database("views_versions").await.unwrap();
    client
        .batch_execute(
            "DROP SCHEMA logins CASCADE; ALTER TABLE user_logins ALTER app_version TYPE text, ALTER create_date TYPE timestamp;
             INSERT INTO user_logins SELECT 'a', 'ios', NULL, NULL, 'DE', '2.3.0-beta', '2026-11-20 12:00' FROM generate_series(1, 2)",
        )
        .await
        .unwrap();
    cluster.apply_sql("views_versions").unwrap();
    for view in ["logins_by_day", "version_adoption", "duplicate_events"] {
        let shown = format!("SELECT concat_ws(' ', day, app_version, version, logins) FROM logins.{view}");
        assert_eq!(texts(&client, &shown).await, ["2026-11-20 2.3.0-beta 2.3.0-beta 2"], "{view}");
    }
}
