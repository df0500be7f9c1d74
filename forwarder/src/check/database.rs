//! The database: is it there, is pg_mask in it, and may the role do what it has to, and no more?

use super::dry_run::{dry_run, failed_check};
use super::findings::Findings;
use super::standbys;
use crate::config::Config;
use crate::database::{self, At, Database};
use crate::error::{End, Error};
use pg_settings::{Connection, Protection, Settings};
use std::time::Duration;
use tokio_postgres::Row;

/// What a batch needs, in the order in which pg_mask looks at it.
const OF_A_BATCH: [&str; 4] = ["extension", "role", "keys", "table"];

const ABOUT: &str = include_str!("about.sql");

/// What else the role may do: which kind of thing, and its name.
const RIGHTS: &str = include_str!("rights.sql");

/// The kinds of what else a role may do, and how to say it.
const KINDS: [(&str, &str); 4] = [
    ("attribute", "has"),
    ("membership", "is a member of"),
    ("function", "may call"),
    ("table", "has rights to the table"),
];
/// So many of a kind are named.
const MOST_NAMED: usize = 3;

/// What is found at the database, and for how many days the ledger knows a message.
pub(super) async fn check(config: &Config) -> (Findings, Option<u64>) {
    let mut findings = Findings::default();
    let ledger_days = look(config, &mut findings).await;
    (findings, ledger_days)
}

async fn look(config: &Config, findings: &mut Findings) -> Option<u64> {
    let reached = async {
        let settings = database::settings(&config.database)?;
        let connection = settings.connect().await?;
        let about = in_time(&connection.server, about(&connection)).await?;
        Ok((settings, connection, about))
    };
    let (settings, connection, about) = match reached.await {
        Ok(reached) => reached,
        Err(error) => {
            findings.failed("database", &error);
            findings.skipped(&["connections"]);
            findings.skipped(&OF_A_BATCH);
            findings.skipped(&["log", "standbys"]);
            return None;
        }
    };
    let server = connection.server.clone();
    reached_at(findings, &connection, &about);
    let ignored: Vec<String> = settings.ignored().iter().map(ToString::to_string).collect();
    if !ignored.is_empty() {
        findings.passed("settings", ignored.join("; "));
    }
    connections(findings, &settings, config.writers).await;
    let mut of_standbys = Findings::default();
    standbys::check(&mut of_standbys, in_time(&server, standbys::ask(&connection)).await);
    let excess_rights = in_time(&server, excess_rights(&connection, &about)).await;
    let (may_log, tried) = match in_time(&server, Database::find(connection)).await {
        Ok((database, may_log)) => {
            let tried = dry_run(&database).await.map_err(|error| (failed_check(&error), error));
            (Some(may_log), tried)
        }
        Err(error) => (None, Err((Some("extension"), error))),
    };
    of_a_batch(findings, &about, &excess_rights, &tried);
    match may_log {
        None => findings.skipped(&["log"]),
        Some(Some(text)) => findings.warning("log", text),
        Some(None) => findings.passed("log", "the server logs no message that this role hands in"),
    }
    findings.append(of_standbys);
    tried.ok().flatten()
}

/// Whether as many connections can be open at once as there are writers. One is open already.
async fn connections(findings: &mut Findings, settings: &Settings, writers: usize) {
    const CHECK: &str = "connections";
    let mut open = Vec::new();
    while open.len() + 1 < writers {
        match settings.connect().await {
            Ok(connection) => open.push(connection),
            Err(error) => {
                return findings.warning(CHECK, format!(
                    "{} of {writers} can be open at once; {error}. Allow the role more (CONNECTION LIMIT, max_connections), or lower --writers.",
                    open.len() + 1
                ));
            }
        }
    }
    findings.passed(CHECK, format!("{writers} can be open at once, one for each writer"));
}

/// Waits for an answer for a while. A server may take the connection and then say nothing more.
async fn in_time<T>(server: &str, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let silent = |_| Err(Error::silent_database(server, PATIENCE));
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(silent)
}

/// What the server says of itself and of the role.
struct About {
    version: String,
    extension: Option<String>,
    role: String,
    superuser: bool,
    /// Who may change the extension's functions, and is no superuser.
    owner: Option<String>,
}

async fn about(connection: &Connection) -> Result<About, Error> {
    let read = |row: &Row| -> Result<About, tokio_postgres::Error> {
        Ok(About {
            // Without what a distribution adds.
            version: row.try_get::<_, &str>(0)?.split(' ').next().unwrap_or_default().to_owned(),
            extension: row.try_get(1)?,
            role: row.try_get(2)?,
            superuser: row.try_get::<_, Option<bool>>(3)?.unwrap_or_default(),
            owner: row.try_get(4)?,
        })
    };
    let server = &connection.server;
    let rows = connection.client.query_typed(ABOUT, &[]).await.at(server)?;
    let about = rows.first().map(read).transpose().at(server)?;
    about.ok_or_else(|| {
        Error::transient(End::Database, format!("the database at {server} says nothing of itself"))
    })
}

fn reached_at(findings: &mut Findings, connected: &Connection, about: &About) {
    const CHECK: &str = "database";
    let at = format!("PostgreSQL {} at {}", about.version, connected.server);
    match (connected.protection, connected.local) {
        (Protection::None, true) => findings.passed(CHECK, format!("{at}, on this machine")),
        (Protection::None, false) => findings.warning(CHECK, format!(
            "{at}, not encrypted: every message can be read on the way. Use sslmode=verify-full (PGSSLMODE)."
        )),
        (Protection::Encrypted, _) => findings.passed(CHECK, format!(
            "{at}, over TLS, but the server's certificate was not verified (sslmode=verify-full does that)"
        )),
        (Protection::Vouched, _) => findings.passed(CHECK, format!("{at}, over TLS, its certificate is good")),
        (Protection::Named, _) => findings.passed(CHECK, format!("{at}, over TLS, its certificate and name are good")),
    }
}

/// What the role may do that it need not.
async fn excess_rights(connection: &Connection, about: &About) -> Result<Option<String>, Error> {
    let role = &about.role;
    let hint = "Let the forwarder log in as pgmask_forwarder, or as another member of pgmask_ingester alone.";
    if about.superuser {
        return Ok(Some(format!(
            "{role} is a superuser, so the forwarder's password is worth the whole server. {hint}"
        )));
    }
    let server = &connection.server;
    let rows = connection.client.query_typed(RIGHTS, &[]).await.at(server)?;
    let read = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
    let found: Result<Vec<(String, String)>, _> = rows.iter().map(read).collect();
    let found = found.at(server)?;
    let said: Vec<String> = KINDS
        .iter()
        .filter_map(|(kind, begins)| {
            let names: Vec<&str> = found.iter().filter(|row| row.0 == *kind).map(|row| &*row.1).collect();
            let more = match names.len().saturating_sub(MOST_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let named = names[..names.len().min(MOST_NAMED)].join(", ");
            (!names.is_empty()).then(|| format!("{begins} {named}{more}"))
        })
        .collect();
    let said = said.join("; ");
    Ok((!said.is_empty()).then(|| format!("{role} may do more than it needs: it {said}. {hint}")))
}

/// What the dry run says of the extension, the role, the keys and the table: an error fails one of these checks,
/// those before it passed, and those after it were not reached.
fn of_a_batch(
    findings: &mut Findings,
    about: &About,
    excess_rights: &Result<Option<String>, Error>,
    tried: &Result<Option<u64>, (Option<&str>, Error)>,
) {
    let failed = tried.as_ref().err().map(|(check, error)| (check.unwrap_or("table"), error));
    // The error tells nothing about the checks before it.
    let unclear = matches!(tried, Err((None, _)));
    let mut reached = true;
    for check in OF_A_BATCH {
        match (check, excess_rights) {
            _ if let Some((_, error)) = failed.filter(|(failed, _)| *failed == check) => {
                findings.failed(check, error);
                reached = false;
            }
            ("role", Err(error)) => findings.failed(check, error),
            ("role", Ok(Some(text))) => findings.warning(check, text),
            ("extension", _) => version(findings, about),
            ("role" | "keys", _) if unclear => findings.skipped(&[check]),
            _ if !reached => findings.skipped(&[check]),
            ("role", _) => {
                findings.passed(check, format!("{} may hand in messages, and nothing else", about.role));
            }
            ("keys", _) => {
                findings.passed(check, "the server's are those that this database was masked with");
            }
            _ => findings.passed(check, "it takes logins"),
        }
    }
}

/// Whether the extension is of the version that this forwarder is made for.
fn version(findings: &mut Findings, about: &About) {
    const CHECK: &str = "extension";
    const BUILT_FOR: &str = env!("CARGO_PKG_VERSION");
    let found = about.extension.as_deref().unwrap_or_default();
    if let Some(owner) = &about.owner {
        findings.warning(CHECK, format!(
            "pg_mask {found}, but it belongs to role {owner}, which is no superuser: that role can have its functions do anything, also read messages. docs/security.md, \"What the commands of superusers run\", says how a superuser takes them over."
        ));
    } else if found == BUILT_FOR {
        findings.passed(CHECK, format!("pg_mask {found}"));
    } else {
        findings.warning(CHECK, format!(
            "pg_mask {found}, and this forwarder is made for {BUILT_FOR}. Install that version on the server and run ALTER EXTENSION pg_mask UPDATE; or use the forwarder of {found}."
        ));
    }
}
