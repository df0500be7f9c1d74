//! The database's end: is it there, is pg_mask in it, and may the role do what it has to, and no more?

use super::Findings;
use crate::config::Config;
use crate::database::{Database, Rehearsal};
use crate::error::Error;
use pg_settings::{Connection, Protection};
use tokio_postgres::{Client, Row};

/// What a batch needs, in the order in which pg_mask looks at it.
const OF_A_BATCH: [&str; 3] = ["role", "keys", "table"];

const ABOUT: &str = "SELECT pg_catalog.current_setting('server_version'),
    (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_mask'),
    current_user::text,
    (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)";

/// Other tables than the system's and those of other extensions that the role has a right to.
const RIGHTS: &str = "SELECT c.oid::pg_catalog.regclass::text
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema'
        AND (n.nspname = 'pgmask' OR n.nspname NOT LIKE 'pg\\_%')
        AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
        AND pg_catalog.has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
            JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname <> 'pg_mask'
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 1";

/// The database's end, and for how many days the ledger knows a message.
pub(super) async fn check(config: &Config) -> (Findings, Option<u64>) {
    let mut findings = Findings::default();
    let ledger_days = look(config, &mut findings).await;
    (findings, ledger_days)
}

async fn look(config: &Config, findings: &mut Findings) -> Option<u64> {
    let connected = async { Ok(config.database.settings()?.connect().await?) }.await;
    let connected = match connected {
        Ok(connected) => connected,
        Err(error) => {
            findings.failed("database", &error);
            findings.skipped(&["extension"]);
            findings.skipped(&OF_A_BATCH);
            findings.skipped(&["log"]);
            return None;
        }
    };
    let about = match about(&connected.client).await {
        Ok(about) => about,
        Err(error) => {
            findings.failed("database", &error);
            findings.skipped(&["extension"]);
            findings.skipped(&OF_A_BATCH);
            findings.skipped(&["log"]);
            return None;
        }
    };
    server(findings, &connected, &about);
    let too_much = too_much(&connected.client, &about).await;
    let (database, may_log) = match Database::find(connected).await {
        Ok(found) => found,
        Err(error) => {
            findings.failed("extension", &error);
            match too_much {
                Ok(Some(text)) => findings.warning("role", text),
                Ok(None) => findings.skipped(&["role"]),
                Err(error) => findings.failed("role", &error),
            }
            findings.skipped(&["keys", "table", "log"]);
            return None;
        }
    };
    let rehearsal = database.rehearse().await;
    extension(findings, &about, &rehearsal);
    let ledger_days = batch(findings, &about, &too_much, rehearsal);
    match may_log {
        Some(text) => findings.warning("log", text.to_string()),
        None => findings.passed("log", "the server logs no message that this role hands in"),
    }
    ledger_days
}

/// What the server says of itself and of us.
struct About {
    version: String,
    extension: Option<String>,
    role: String,
    superuser: bool,
}

async fn about(client: &Client) -> Result<About, Error> {
    let read = |row: &Row| {
        Ok(About {
            // Without what a distribution adds.
            version: row.try_get::<_, &str>(0)?.split(' ').next().unwrap_or_default().to_owned(),
            extension: row.try_get(1)?,
            role: row.try_get(2)?,
            superuser: row.try_get::<_, Option<bool>>(3)?.unwrap_or_default(),
        })
    };
    let rows = client.query_typed(ABOUT, &[]).await;
    let row = rows.and_then(|rows| rows.first().map(read).transpose());
    row.map_err(|error| Error::of_database(&error))?.ok_or(Error::Defect)
}

fn server(findings: &mut Findings, connected: &Connection, about: &About) {
    const CHECK: &str = "database";
    let at = format!("PostgreSQL {} at {}", about.version, connected.server);
    match (connected.protection, connected.local) {
        (Protection::None, true) => findings.passed(CHECK, format!("{at}, on this machine")),
        (Protection::None, false) => findings.warning(CHECK, format!(
            "{at}, not encrypted: who listens on the way reads every message. Use sslmode=verify-full (PGSSLMODE)."
        )),
        (Protection::Encrypted, _) => findings.passed(CHECK, format!(
            "{at}, over TLS; nobody asked whether it is the right server (sslmode=verify-full does)"
        )),
        (Protection::Vouched, _) => findings.passed(CHECK, format!("{at}, over TLS, its certificate is good")),
        (Protection::Named, _) => findings.passed(CHECK, format!("{at}, over TLS, its certificate and name are good")),
    }
}

/// What the role may do that it need not.
async fn too_much(client: &Client, about: &About) -> Result<Option<String>, Error> {
    let role = &about.role;
    let cure = "Let the forwarder log in as pgmask_forwarder of sql/02_roles.sql, or as another member of pgmask_ingester alone.";
    if about.superuser {
        return Ok(Some(format!(
            "{role} is a superuser: whoever gets hold of the forwarder has the server. {cure}"
        )));
    }
    let tables = client.query_typed(RIGHTS, &[]).await.map_err(|error| Error::of_database(&error))?;
    let Some(first) = tables.first() else { return Ok(None) };
    let first: &str = first.try_get(0).map_err(|error| Error::of_database(&error))?;
    let more = match tables.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Ok(Some(format!("{role} has rights to tables, which it does not need: {first}{more}. {cure}")))
}

fn extension(findings: &mut Findings, about: &About, rehearsal: &Rehearsal) {
    const CHECK: &str = "extension";
    const BUILT_FOR: &str = env!("CARGO_PKG_VERSION");
    let found = about.extension.as_deref().unwrap_or_default();
    match rehearsal {
        Rehearsal::NoFunction(error) => findings.failed(CHECK, error),
        _ if found == BUILT_FOR => findings.passed(CHECK, format!("pg_mask {found}")),
        _ => findings.warning(CHECK, format!(
            "pg_mask {found}, and this forwarder is made for {BUILT_FOR}. Install that version on the server and run ALTER EXTENSION pg_mask UPDATE; or use the forwarder of {found}."
        )),
    }
}

/// What trying a batch says of the role, the keys and the table.
fn batch(
    findings: &mut Findings,
    about: &About,
    too_much: &Result<Option<String>, Error>,
    rehearsal: Rehearsal,
) -> Option<u64> {
    let [role, keys, table] = OF_A_BATCH;
    match (&rehearsal, too_much) {
        (Rehearsal::NoFunction(_) | Rehearsal::Failed(_), Ok(None)) => findings.skipped(&[role]),
        (Rehearsal::NoRight(error), _) | (_, Err(error)) => findings.failed(role, error),
        (_, Ok(Some(text))) => findings.warning(role, text),
        (_, Ok(None)) => {
            findings.passed(role, format!("{} may hand in messages, and nothing else", about.role));
        }
    }
    match rehearsal {
        Rehearsal::NoFunction(_) | Rehearsal::NoRight(_) => findings.skipped(&[keys, table]),
        Rehearsal::Failed(error) => {
            findings.skipped(&[keys]);
            findings.failed(table, &error);
        }
        Rehearsal::Keys(error) => {
            findings.failed(keys, &error);
            findings.skipped(&[table]);
        }
        Rehearsal::Table(error) => {
            findings.passed(keys, KEYS);
            findings.failed(table, &error);
        }
        Rehearsal::Good { ledger_days } => {
            findings.passed(keys, KEYS);
            findings.passed(table, "it takes logins");
            return ledger_days;
        }
    }
    None
}

const KEYS: &str = "the server's are those that this database was masked with";
