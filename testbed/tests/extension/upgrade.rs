//! ALTER EXTENSION pg_mask UPDATE leads to just what CREATE EXTENSION makes, object by object, and loses nothing.
//!
//! That is tried from each version whose install script is in `pg_mask/sql`, with the library of now: its functions
//! keep the names that older scripts know. It is also tried with a version that is made up here, which follows the
//! current one: as long as one version alone is released, nothing else would show that a mistake in an upgrade
//! script is found.

use super::objects::{difference, objects};
use crate::common::{cluster, ingest, texts, unseal_all};
use testbed::cluster::Cluster;
use testbed::installation::shared;
use testbed::root;
use tokio_postgres::Client;

const CURRENT: &str = env!("CARGO_PKG_VERSION");
const MADE_UP: &str = "made-up";
const MESSAGES: [(&str, &str); 2] = [("a", r#"{"user_id":"u","ip":"203.0.113.7"}"#), ("b", "nonsense")];

/// A change as versions bring them: what the upgrade script does, and which text of the install script becomes
/// which. Without a text, the same statement stands at the install script's end.
struct Change {
    upgrade: &'static str,
    install: Option<(&'static str, &'static str)>,
}

const CHANGES: &[Change] = &[
    Change {
        upgrade: "ALTER TABLE pgmask.quarantine ADD COLUMN source text",
        install: Some(("    sealed_body bytea NOT NULL\n", "    sealed_body bytea NOT NULL,\n    source text\n")),
    },
    Change { upgrade: "COMMENT ON COLUMN pgmask.quarantine.source IS 'which queue it came from'", install: None },
    Change {
        upgrade: "CREATE OR REPLACE VIEW pgmask.quarantine_summary AS
            SELECT reason, (quarantined_at AT TIME ZONE INTERVAL '0')::date AS day, count(*) AS messages, max(quarantined_at) AS last_at
            FROM pgmask.quarantine GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2",
        install: Some((
            "count(*) AS messages\n    FROM pgmask.quarantine",
            "count(*) AS messages, max(quarantined_at) AS last_at\n    FROM pgmask.quarantine",
        )),
    },
    Change {
        upgrade: "ALTER FUNCTION pgmask.wait_for_writers(regclass) SET lock_timeout = '5s'",
        install: Some((
            "FUNCTION pgmask.wait_for_writers(relation regclass) RETURNS void\n    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS",
            "FUNCTION pgmask.wait_for_writers(relation regclass) RETURNS void\n    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS",
        )),
    },
    Change { upgrade: "CREATE TABLE pgmask.note (id bigint GENERATED ALWAYS AS IDENTITY, text text)", install: None },
    Change { upgrade: "SELECT pg_catalog.pg_extension_config_dump('pgmask.note', '')", install: None },
    Change { upgrade: "GRANT SELECT ON pgmask.note TO pg_monitor", install: None },
    Change {
        upgrade: "CREATE FUNCTION pgmask.notes() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM pgmask.note'",
        install: None,
    },
    Change { upgrade: "REVOKE ALL ON FUNCTION pgmask.notes() FROM PUBLIC", install: None },
    Change { upgrade: "COMMENT ON FUNCTION pgmask.notes() IS 'how many notes there are'", install: None },
];

/// Puts a script where the server looks for it.
fn put_script(versions: &str, sql: &str) {
    let file = shared().unwrap().extensions.join(format!("pg_mask--{versions}.sql"));
    std::fs::write(file, sql).unwrap();
}

fn upgrade_script(changes: impl Iterator<Item = &'static Change>) -> String {
    let guard =
        format!("\\echo Use \"ALTER EXTENSION pg_mask UPDATE TO '{MADE_UP}'\" to load this file. \\quit\n");
    changes.fold(guard, |script, change| format!("{script}{};\n", change.upgrade))
}

fn install_script() -> String {
    let file = root().join(format!("pg_mask/sql/pg_mask--{CURRENT}.sql"));
    let current = std::fs::read_to_string(file).unwrap();
    CHANGES.iter().fold(current, |script, change| match change.install {
        None => format!("{script}{};\n", change.upgrade),
        Some((from, to)) => {
            assert_eq!(script.matches(from).count(), 1, "{from}");
            script.replace(from, to)
        }
    })
}

/// The versions of the install scripts in `pg_mask/sql`, but for the current one.
fn older_versions() -> Vec<String> {
    let files = std::fs::read_dir(root().join("pg_mask/sql")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let version = |name: String| {
        let version = name.strip_prefix("pg_mask--")?.strip_suffix(".sql")?;
        (!version.contains("--") && version != CURRENT).then(|| version.to_owned())
    };
    names.filter_map(version).collect()
}

async fn database(cluster: &Cluster, name: &str, version: &str) -> Client {
    let postgres = cluster.connect("postgres").await.unwrap();
    postgres.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await.unwrap();
    let client = cluster.connect(name).await.unwrap();
    client.batch_execute(&format!("CREATE EXTENSION pg_mask VERSION '{version}'")).await.unwrap();
    client
}

/// Upgrades a database that was used, and compares it with a fresh one.
async fn leads_to_the_same(cluster: &Cluster, from: &str, to: &str) {
    let name = |what| format!("{what}_from_{from}").replace(['.', '-'], "_");
    let client = database(cluster, &name("upgraded"), from).await;
    cluster.apply_sql(&name("upgraded")).unwrap();
    assert_eq!(ingest(&client, &MESSAGES).await, [1, 0, 1], "{from}");
    let tokens = "SELECT masked_ip FROM user_logins UNION ALL SELECT mask_pii('203.0.113.7')";
    let before = texts(&client, tokens).await;

    client.batch_execute(&format!("ALTER EXTENSION pg_mask UPDATE TO '{to}'")).await.unwrap();
    cluster.apply_sql(&name("upgraded")).unwrap();

    let fresh = database(cluster, &name("fresh"), to).await;
    cluster.apply_sql(&name("fresh")).unwrap();
    assert_eq!(difference(&objects(&client).await, &objects(&fresh).await), [""; 0], "{from} to {to}");
    assert_eq!(texts(&client, tokens).await, before);
    assert_eq!(ingest(&client, &MESSAGES).await, [0, 2, 0], "{from}: the ledger knows its messages");
    assert_eq!(unseal_all(&client).await, [b"nonsense"]);
    assert_eq!(texts(&client, "SELECT item FROM pgmask.health WHERE state = 'failed'").await, [""; 0]);
}

#[tokio::test]
async fn an_upgrade_leads_to_what_an_installation_makes() {
    let cluster = cluster().await;
    for version in older_versions() {
        leads_to_the_same(cluster, &version, CURRENT).await;
    }
    put_script(MADE_UP, &install_script());
    put_script(&format!("{CURRENT}--{MADE_UP}"), &upgrade_script(CHANGES.iter()));
    leads_to_the_same(cluster, CURRENT, MADE_UP).await;
}

/// Whichever statement of an upgrade script is forgotten: the upgrade fails, or the comparison shows it.
#[tokio::test]
async fn what_an_upgrade_script_forgets_is_found() {
    let cluster = cluster().await;
    put_script("complete", &install_script());
    let complete = objects(&database(cluster, "complete", "complete").await).await;
    drop(database(cluster, "before_upgrade", CURRENT).await);
    let postgres = cluster.connect("postgres").await.unwrap();
    for (left_out, change) in CHANGES.iter().enumerate() {
        let version = format!("without-{left_out}");
        let others = CHANGES.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, change)| change);
        put_script(&format!("{CURRENT}--{version}"), &upgrade_script(others));
        let name = version.replace('-', "_");
        // The template is in use for as long as the session before it is about to end.
        testbed::guardian::wait_until("the database is copied", || async {
            let copy = format!("CREATE DATABASE {name} TEMPLATE before_upgrade");
            postgres.batch_execute(&copy).await.is_ok()
        })
        .await
        .unwrap();
        let client = cluster.connect(&name).await.unwrap();
        let upgraded = client.batch_execute(&format!("ALTER EXTENSION pg_mask UPDATE TO '{version}'")).await;
        if upgraded.is_ok() {
            let found = difference(&objects(&client).await, &complete);
            assert!(!found.is_empty(), "nothing shows that this was left out: {}", change.upgrade);
        }
    }
}
