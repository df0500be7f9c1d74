//! `make demo`: the whole way once, as an analyst would look at it.

use crate::cluster::Cluster;
use crate::emulator::Emulator;
use crate::queue::Queue;
use crate::{Result, forwarder, sample};
use std::process::Stdio;

const QUEUE: &str = "login-queue";

/// Loaded at the start, so that the budget of guesses is one for all sessions of a role.
const SETTINGS: &[&str] = &["shared_preload_libraries = 'pg_mask'"];

/// What an analyst asks. Tokens are cut short to fit a terminal.
const QUESTIONS: [(&str, &str); 4] = [
    (
        "Logins as they are stored: addresses and devices are tokens",
        "SELECT user_id, device_type, left(masked_ip, 12) || '…' AS masked_ip,
       left(masked_device_id, 12) || '…' AS masked_device_id, locale,
       app_version_text(app_version) AS app_version, create_date
FROM user_logins ORDER BY user_id LIMIT 6;",
    ),
    (
        "Addresses shared by the most users",
        "SELECT left(masked_ip, 12) || '…' AS masked_ip, users, logins
FROM logins.shared_ips ORDER BY users DESC, logins DESC LIMIT 5;",
    ),
    (
        "Devices that changed hands",
        "SELECT left(masked_device_id, 12) || '…' AS masked_device_id, users, logins
FROM logins.shared_devices ORDER BY users DESC, logins DESC LIMIT 5;",
    ),
    (
        "Is 203.0.113.7 among the addresses, and how often? (Only who may call mask_pii can ask.)",
        "SELECT count(*) AS logins, count(DISTINCT user_id) AS users
FROM user_logins WHERE masked_ip = mask_pii('203.0.113.7');",
    ),
];

/// What somebody tries who has a token and wants the address. It fails.
const GUESSES: (&str, &str) = (
    "Which address is behind a token? Trying all that begin with 10. ends at the guess limit",
    "SELECT '10.0.0.0'::inet + n AS address FROM generate_series(0, 16777215) AS n
WHERE mask_pii('10.0.0.0'::inet + n) = (SELECT masked_ip FROM user_logins ORDER BY user_id LIMIT 1);",
);

/// What a DBA asks.
const QUARANTINED: (&str, &str) = (
    "Messages that are no logins: kept, sealed, and why",
    "SELECT reason, messages FROM pgmask.quarantine_summary;",
);

/// Runs it; with `keep`, the servers stay up until Ctrl-C.
pub async fn run(keep: bool) -> Result<()> {
    eprintln!("Starting PostgreSQL and LocalStack …");
    let (cluster, emulator) = tokio::try_join!(Cluster::start(SETTINGS), Emulator::localstack())?;
    cluster.database("demo").await?;
    let queue = Queue::create(&emulator, QUEUE).await?;
    queue.send(&sample::bodies()).await?;
    eprintln!("{} messages wait in {QUEUE}. Running: forwarder --drain", sample::MESSAGES);

    let mut command = forwarder::command(&emulator, QUEUE, &cluster.url("pgmask_forwarder", "demo"))?;
    let status = command.arg("--drain").env("TERM", std::env::var_os("TERM").unwrap_or_default()).status()?;
    if !status.success() {
        return Err(format!("the forwarder ended with {status}").into());
    }
    for (title, sql) in QUESTIONS {
        show(&cluster, "SET ROLE pgmask_analyst", title, sql)?;
    }
    if show(&cluster, "SET ROLE pgmask_analyst", GUESSES.0, GUESSES.1).is_ok() {
        return Err("the guesses were not stopped".into());
    }
    show(&cluster, "RESET ROLE", QUARANTINED.0, QUARANTINED.1)?;

    if keep {
        println!("\nThe servers are up until you press Ctrl-C. In another terminal:");
        println!("  psql {}", cluster.url("postgres", "demo"));
        println!("  export AWS_ENDPOINT_URL={} AWS_REGION=us-east-1 \\", emulator.endpoint());
        println!("         AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test");
        println!("  {} --queue-name {QUEUE} \\", forwarder::program()?.display());
        println!("    --database-url {}", cluster.url("pgmask_forwarder", "demo"));
        tokio::signal::ctrl_c().await?;
    } else {
        println!("\nThat was all, and it is gone. To keep the servers up and look around: make demo KEEP=1");
    }
    Ok(())
}

fn show(cluster: &Cluster, role: &str, title: &str, sql: &str) -> Result<()> {
    println!("\n── {title}\n{sql}\n");
    let mut psql = cluster.psql("demo");
    psql.args(["--quiet", "--pset=footer=off", "--command", role, "--command", sql]);
    if !psql.stdin(Stdio::null()).status()?.success() {
        return Err("psql failed".into());
    }
    Ok(())
}
