//! What analysts ask of ten million logins: the views, beside the same question asked in the plainest way, without and
//! with the indexes that sql/01 offers; and stored results, as dashboards read them. `PG_MASK_BENCH_ROWS` gives the number
//! of rows, and `PG_MASK_BENCH_PLANS` a file for the plans.

use super::SETTINGS;
use super::report::{Bound, Report, Table};
use crate::Result;
use crate::cluster::Cluster;
use std::io::Write;
use std::time::Instant;
use tokio_postgres::Client;

const DEFAULT_ROWS: u64 = 10_000_000;
const ROUNDS: usize = 3;

/// Forty logins a user, over ninety days: from home, which two share; from an office, which fifty share; and from a phone,
/// whose address changes. A device is one user's, but for a few that many use.
const LOGINS: &str = "INSERT INTO user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date{column})
    SELECT 'user ' || u, (ARRAY['ios', 'android', 'web'])[1 + u % 3],
        mask_pii(host(ip)),
        mask_pii(CASE WHEN n % 1000 = 4 THEN 'kiosk ' || n % 777 ELSE 'device ' || u END),
        (ARRAY['DE', 'FR', 'US', 'GB', 'IT', 'ES', 'PL', NULL])[1 + u % 8], 2000000 + 1000 * (n * 10 / {rows}) + n % 3,
        '2026-09-01'::date + (n * 90 / {rows})::integer{network}
    FROM (SELECT n, u, CASE WHEN n % 10 < 6 THEN '10.0.0.0'::inet + u / 2 WHEN n % 10 < 8 THEN '172.16.0.0'::inet + u / 50
            ELSE '100.64.0.0'::inet + u + {rows} / 40 * (n / ({rows} / 2)) END AS ip
        FROM (SELECT n, abs(hashint8(n)::bigint) % ({rows} / 40) AS u FROM generate_series(0, {rows}::bigint - 1) AS n) AS s) AS s";

/// What docs/sql.md advises for an analyst's role: memory, leave to work in parallel with groups that are many, and what
/// reading an index costs where it is cached or on a solid-state disk.
const SESSION: &str =
    "SET work_mem = '256MB'; SET parallel_tuple_cost = 0.001; SET random_page_cost = 1.1; SET jit = off";

const INDEXES: &str =
    "CREATE INDEX user_logins_masked_ip ON public.user_logins (masked_ip, user_id) INCLUDE (create_date);
    CREATE INDEX user_logins_masked_device_id ON public.user_logins (masked_device_id, user_id) INCLUDE (create_date)";
const INDEX_OF_NETWORKS: &str = "CREATE INDEX user_logins_masked_ip_network ON public.user_logins (masked_ip_network, user_id) INCLUDE (create_date)";
const INDEX_SIZE: &str =
    "SELECT pg_relation_size('user_logins')::float8, pg_relation_size('user_logins_masked_ip')::float8";

/// `shared_ips` in the plainest way.
const PLAIN: (&str, &str) = (
    "count(DISTINCT user_id)",
    "SELECT count(*) FROM (SELECT pgmask.current_mask(masked_ip), count(DISTINCT user_id), count(*), min(create_date), max(create_date)
     FROM user_logins WHERE masked_ip IS NOT NULL GROUP BY 1 HAVING count(DISTINCT user_id) > 1) AS s",
);
const VIEWS: [&str; 8] = [
    "shared_ips",
    "shared_devices",
    "users_with_many_ips",
    "users_with_many_devices",
    "logins_by_day",
    "version_adoption",
    "duplicate_events",
    "new_devices_by_day",
];
const DASHBOARDS: [(&str, &str); 4] = [
    (
        "the 20 most shared addresses",
        "SELECT * FROM logins.dashboard_shared_ips ORDER BY users DESC, logins DESC LIMIT 20",
    ),
    (
        "the 20 most shared devices",
        "SELECT * FROM logins.dashboard_shared_devices ORDER BY users DESC, logins DESC LIMIT 20",
    ),
    (
        "logins by day",
        "SELECT day, sum(logins) FROM logins.dashboard_logins_by_day GROUP BY day ORDER BY day",
    ),
    ("versions of the last week", "SELECT * FROM logins.dashboard_version_adoption WHERE day > '2026-11-22'"),
];

pub(super) async fn run(report: &mut Report) -> Result<()> {
    let rows = match std::env::var("PG_MASK_BENCH_ROWS") {
        Ok(rows) => rows.parse()?,
        Err(_) => DEFAULT_ROWS,
    };
    let mut plans = match std::env::var_os("PG_MASK_BENCH_PLANS") {
        Some(path) => Some(std::fs::File::create(path)?),
        None => None,
    };
    let cluster = Cluster::start(SETTINGS).await?;
    let client = cluster.database("bench").await?;
    fill(&client, rows, "", "").await?;

    let mut table = Table::new(format!("views: {rows} logins"), "s");
    table.figure("reading them: count(*)", &times(&client, "SELECT count(*) FROM user_logins").await?, "");
    table.figure(PLAIN.0, &times(&client, PLAIN.1).await?, "shared_ips in the plainest way");
    client.batch_execute(SESSION).await?;
    table.figure(format!("{}, with memory", PLAIN.0), &times(&client, PLAIN.1).await?, SESSION);
    for view in VIEWS {
        let asked = format!("SELECT count(*) FROM logins.{view}");
        table.figure(view, &times(&client, &asked).await?, "");
        explain(&client, &mut plans, view, &asked).await?;
    }
    client.batch_execute(INDEXES).await?;
    client.batch_execute("VACUUM (ANALYZE) user_logins").await?;
    let sizes = client.query_one(INDEX_SIZE, &[]).await?;
    let note = format!(
        "{:.2} GB beside the table's {:.2}",
        sizes.get::<_, f64>(1) / 1e9,
        sizes.get::<_, f64>(0) / 1e9
    );
    for view in &VIEWS[..4] {
        let (asked, name) =
            (format!("SELECT count(*) FROM logins.{view}"), format!("{view}, with its index"));
        table.figure(name.as_str(), &times(&client, &asked).await?, note.as_str());
        explain(&client, &mut plans, &name, &asked).await?;
    }
    table.absolute("shared_ips, with its index", Bound::AtMost(4.0));
    table.goal("shared_ips, with its index", PLAIN.0, Bound::AtMost(0.5));
    table.ratio("shared_ips", PLAIN.0);
    report.add(table);

    cluster.apply_file("bench", "05_dashboards.sql")?;
    let mut table = Table::new(format!("views: what dashboards read, of {rows} logins"), "ms");
    for (name, asked) in DASHBOARDS {
        let times: Vec<f64> = times(&client, asked).await?.iter().map(|seconds| seconds * 1e3).collect();
        table.figure(name, &times, "");
        table.absolute(name, Bound::AtMost(50.0));
        explain(&client, &mut plans, name, asked).await?;
    }
    report.add(table);
    let mut table = Table::new("views: refreshing them", "s");
    table.figure(
        "logins.refresh_dashboards()",
        &[times(&client, "SELECT logins.refresh_dashboards()").await?[0]],
        "CONCURRENTLY: readers see what was stored before",
    );
    report.add(table);

    client.batch_execute("TRUNCATE user_logins").await?;
    cluster.apply_file("bench", "04_networks.sql")?;
    fill(&client, rows, ", masked_ip_network", ", mask_network(ip)").await?;
    let mut table = Table::new(format!("views: {rows} logins with masked_ip_network"), "s");
    let asked = "SELECT count(*) FROM logins.shared_networks";
    for (name, index) in [("shared_networks", ""), ("shared_networks, with its index", INDEX_OF_NETWORKS)] {
        client.batch_execute(index).await?;
        client.batch_execute("VACUUM (ANALYZE) user_logins").await?;
        table.figure(name, &times(&client, asked).await?, "");
        explain(&client, &mut plans, name, asked).await?;
    }
    report.add(table);
    Ok(())
}

/// Writes the logins, with one column more if there is one, and leaves nothing to do in the background.
async fn fill(client: &Client, rows: u64, column: &str, network: &str) -> Result<()> {
    let insert = LOGINS.replace("{rows}", &rows.to_string());
    client.batch_execute(&insert.replace("{column}", column).replace("{network}", network)).await?;
    client.batch_execute("VACUUM (FREEZE, ANALYZE) user_logins").await?;
    client.batch_execute("CHECKPOINT").await?;
    Ok(())
}

/// Seconds, round by round.
async fn times(client: &Client, sql: &str) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        client.query(sql, &[]).await?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(times)
}

/// Writes down how a query is run.
async fn explain(client: &Client, plans: &mut Option<std::fs::File>, name: &str, sql: &str) -> Result<()> {
    let Some(file) = plans else { return Ok(()) };
    writeln!(file, "== {name}\n{sql}\n")?;
    for row in client.query(&format!("EXPLAIN (ANALYZE, BUFFERS) {sql}"), &[]).await? {
        writeln!(file, "{}", row.get::<_, &str>(0))?;
    }
    writeln!(file)?;
    Ok(())
}
