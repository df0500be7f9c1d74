//! `make demo`: the whole way once, as an analyst would look at it.

mod chart;

use crate::cluster::Cluster;
use crate::emulator::Emulator;
use crate::queue::Queue;
use crate::{Result, forwarder, sample};
use chart::{Canvas, Chart};
use console::style;
use std::io::IsTerminal;
use std::process::Stdio;
use time::{Duration, OffsetDateTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_postgres::Client;

const QUEUE: &str = "login-queue";

/// Loaded at the start, so that the budget of guesses is one for all sessions of a role.
const SETTINGS: &[&str] = &["shared_preload_libraries = 'pg_mask'"];

/// What an analyst asks. Tokens are cut short to fit a terminal.
const QUESTIONS: [(&str, &str); 2] = [
    (
        "Logins as they are stored: values are tokens",
        "SELECT DISTINCT ON (user_id) user_id,
       left(masked_ip, 9) || '…' AS masked_ip,
       left(masked_device_id, 9) || '…' AS device, locale,
       app_version_text(app_version) AS version
FROM user_logins ORDER BY user_id LIMIT 5;",
    ),
    (
        "Is 203.0.113.7 among them? Who may mask can ask",
        "SELECT count(*) AS logins, count(DISTINCT user_id) AS users
FROM user_logins WHERE masked_ip = mask_pii('203.0.113.7');",
    ),
];

/// What somebody tries who has a token and wants the address. It fails.
const GUESSES: (&str, &str) = (
    "Which address is behind a token? Guessing is stopped",
    "SELECT '10.0.0.0'::inet + n AS address
FROM (SELECT generate_series(0, 16777215) AS n) AS every
WHERE mask_pii('10.0.0.0'::inet + n) =
      (SELECT masked_ip FROM user_logins LIMIT 1);",
);

/// What a DBA asks.
const QUARANTINED: (&str, &str) = (
    "Messages that are no logins: kept, sealed, and why",
    "SELECT reason, messages FROM pgmask.quarantine_summary;",
);

/// What is drawn: a title, and a query for labels and numbers. The views compare tokens.
const CHARTS: [(&str, &str); 3] = [
    (
        "Logins a day",
        "SELECT to_char(day, 'Dy DD Mon'), sum(logins)::bigint FROM logins.logins_by_day GROUP BY day ORDER BY day",
    ),
    (
        "Devices with the most users",
        "SELECT left(masked_device_id, 12) || '…', users FROM logins.shared_devices ORDER BY users DESC, 1 LIMIT 5",
    ),
    (
        "Networks with the most users",
        "SELECT left(masked_ip_network, 12) || '…', users FROM logins.shared_networks ORDER BY users DESC, 1 LIMIT 5",
    ),
];

const DATABASE: &str = "demo";
const ANALYST: &str = "analyst";

/// Runs it; with `keep`, the servers stay up: until the analyst's psql ends, or, without a terminal, until Ctrl-C.
pub async fn run(keep: bool) -> Result<()> {
    eprintln!("Starting PostgreSQL and LocalStack …");
    // LocalStack takes the longest, so it is started first, and the database is made ready meanwhile.
    let (emulator, (cluster, database, earlier)) =
        tokio::try_join!(Emulator::localstack(), cluster_with_logins())?;
    let queue = Queue::create(&emulator, QUEUE).await?;
    queue.send(&sample::bodies()).await?;
    eprintln!("{earlier} logins of the last two weeks are there.");
    eprintln!("{} messages wait in {QUEUE}. Running: forwarder --drain", sample::MESSAGES);

    let mut command = forwarder::command(&emulator, QUEUE, &cluster.url("pgmask_forwarder", DATABASE))?;
    // Its environment is its own, but for what says how to write to this terminal.
    command.envs(["TERM", "NO_COLOR"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    let status = command.arg("--drain").status()?;
    if !status.success() {
        return Err(format!("the forwarder ended with {status}").into());
    }
    database.batch_execute("ANALYZE public.user_logins").await?;
    for (title, sql) in QUESTIONS {
        show(&cluster, ANALYST, title, sql)?;
    }
    if show(&cluster, ANALYST, GUESSES.0, GUESSES.1).is_ok() {
        return Err("the guesses were not stopped".into());
    }
    show(&cluster, "postgres", QUARANTINED.0, QUARANTINED.1)?;
    draw(&cluster.connect_as(ANALYST, DATABASE).await?).await?;
    if keep {
        return stay(&cluster, &emulator).await;
    }
    say_what_next();
    Ok(())
}

/// A cluster whose database has the logins of two weeks, with how many these are.
async fn cluster_with_logins() -> Result<(Cluster, Client, i64)> {
    let cluster = Cluster::start(SETTINGS).await?;
    let database = cluster.database(DATABASE).await?;
    cluster.apply_file(DATABASE, "04_networks.sql")?;
    database.batch_execute(&format!("CREATE ROLE {ANALYST} LOGIN IN ROLE pgmask_analyst")).await?;
    let yesterday = OffsetDateTime::now_utc().date() - Duration::days(1);
    let earlier = sample::take_in(&database, &sample::fortnight(yesterday)).await?;
    Ok((cluster, database, earlier))
}

fn head(title: &str) {
    println!("\n{}", style(format!("── {title}")).bold());
}

fn show(cluster: &Cluster, user: &str, title: &str, sql: &str) -> Result<()> {
    head(title);
    println!("{sql}\n");
    let mut psql = cluster.command("psql");
    psql.args(["--no-psqlrc", "--quiet", "--pset=footer=off", "--dbname", &cluster.url(user, DATABASE)]);
    if !psql.args(["--command", sql]).stdin(Stdio::null()).status()?.success() {
        return Err("psql failed".into());
    }
    Ok(())
}

/// The picture at the end.
async fn draw(analyst: &Client) -> Result<()> {
    let mut charts = Vec::new();
    for (title, sql) in CHARTS {
        let rows = analyst.query(sql, &[]).await?;
        let bars = rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1).unsigned_abs())).collect();
        charts.push(Chart { title: title.to_owned(), bars });
    }
    head("What the analyst has of it: counts, and no value");
    for line in Canvas::stdout().draw(&charts) {
        println!("{line}");
    }
    Ok(())
}

fn say_what_next() {
    head("That was all, and it is gone. Next");
    println!("  make demo KEEP=1    the same, then psql as the analyst");
    println!("  docs/cookbook.md    twenty questions, with SQL");
    println!("  README.md           install it, with your own queue");
}

async fn stay(cluster: &Cluster, emulator: &Emulator) -> Result<()> {
    head("The servers stay up. Next");
    println!("  docs/cookbook.md: twenty questions of these logins, with SQL");
    println!("  As the DBA, in another terminal:");
    println!("    psql {}", cluster.url("postgres", DATABASE));
    println!("  To send more and carry it:");
    println!("    export AWS_ENDPOINT_URL={} AWS_REGION=us-east-1 \\", emulator.endpoint());
    println!("           AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test");
    println!("    {} --queue-name {QUEUE} \\", forwarder::program()?.display());
    println!("      --database-url {}", cluster.url("pgmask_forwarder", DATABASE));
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        println!("\nThey are up until you press Ctrl-C. As the analyst:");
        println!("    psql {}", cluster.url(ANALYST, DATABASE));
        tokio::signal::ctrl_c().await?;
        return Ok(());
    }
    println!("\nThis is psql as the analyst. \\q ends it, and all is gone then.");
    println!("For example: TABLE logins.shared_ips;\n");
    // Ctrl-C is psql's, to cancel a query.
    let _interrupts = signal(SignalKind::interrupt())?;
    let mut psql = cluster.command("psql");
    psql.args(["--no-psqlrc", "--quiet", "--dbname", &cluster.url(ANALYST, DATABASE)]);
    // In a folder that the server's user may write to, and that goes with the cluster.
    psql.env("PSQL_HISTORY", cluster.data().join("psql_history"));
    tokio::process::Command::from(psql).status().await?;
    Ok(())
}
