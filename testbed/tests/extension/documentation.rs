//! The pages about the database are run, with each PostgreSQL at hand: see [`crate::documentation`]. Those about the
//! whole system are run by `system::documentation`.

use crate::common::{count, ingest, texts, write_keyring};
use crate::documentation::comparison::is_alike;
use crate::documentation::markdown::{self, Block, Content, Mark};
use crate::documentation::{Place, sql};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;
use testbed::sample::{self, Login};

/// A page is run in a database of its own.
async fn run(database: &'static str, path: &'static str) {
    Place::new(database, &[]).await.run(path).await;
}

#[tokio::test]
async fn taking_over_a_table_goes_as_the_guide_says() {
    run("adoption", "docs/adoption.md").await;
}

#[tokio::test]
async fn the_reference_shows_what_is_so() {
    run("reference", "docs/sql.md").await;
}

#[tokio::test]
async fn the_examples_of_the_security_page_run() {
    let mut place = Place::new("secure", &["pgmask.vault = on"]).await;
    let client = place.cluster.connect("secure").await.unwrap();
    ingest(&client, &[("a", r#"{"user_id":1,"ip":"203.0.113.7"}"#)]).await;
    place.run("docs/security.md").await;
}

/// With two weeks of logins until 2026-11-20, networks, and the messages of the demo on the last day.
async fn with_logins(database: &'static str) -> Place {
    let place = Place::new(database, &["shared_preload_libraries = 'pg_mask'"]).await;
    place.cluster.apply_file(database, "04_networks.sql").unwrap();
    let client = place.cluster.connect(database).await.unwrap();
    let last = time::macros::date!(2026 - 11 - 20);
    let mut logins = sample::fortnight(last);
    logins.extend(sample::bodies().into_iter().map(|body| Login { day: last, body }));
    sample::take_in(&client, &logins).await.unwrap();
    client.batch_execute("ANALYZE").await.unwrap();
    place
}

#[tokio::test]
async fn the_cookbook_answers_its_questions() {
    with_logins("cookbook").await.run("docs/cookbook.md").await;
}

/// A million logins take too long with a library that was built for tests: a tenth of them do here.
#[tokio::test]
async fn duplicates_are_duplicates_among_tokens() {
    let mut place = Place::new("duplicates", &[]).await;
    for (shown, here) in [("1000000", "100000"), ("999750", "99750"), ("500000", "50000")] {
        place.instead.push((shown, here.to_owned()));
    }
    place.run("docs/duplicates.md").await;
}

#[tokio::test]
async fn the_operations_page_runs() {
    let mut place = Place::new("operated", &["wal_level = logical"]).await;
    let user = place.cluster.installation().user;
    let etc = place.folder.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    std::fs::set_permissions(&etc, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    place.instead.push(("/etc/pg_mask", etc.join("pg_mask").display().to_string()));
    let owner = user.map(|user| format!("--owner={} --group={}", user.uid, user.gid)).unwrap_or_default();
    place.instead.push(("--owner=postgres --group=postgres", owner));
    place.run("docs/operations.md").await;
}

/// The blocks of the section run on the server that the page names, and the keyring is copied where it says so.
#[tokio::test]
async fn a_rotation_with_a_standby_goes_as_the_page_says() {
    const PAGE: &str = "docs/operations.md";
    let mut primary = Cluster::start(&["wal_level = replica", "max_wal_senders = 4"]).await.unwrap();
    let client = primary.database("rotated").await.unwrap();
    let messages: Vec<(String, String)> =
        (0..).map(|n: u32| format!("message {n}")).zip(sample::bodies()).collect();
    ingest(&client, &messages).await;
    let standby = primary.standby().await.unwrap();
    let reader = standby.connect("rotated").await.unwrap();
    let page = include_str!("../../../docs/operations.md");
    let marked = Some(Mark::RunBy("extension::documentation".to_owned()));
    let from = 1 + page.lines().position(|line| line == "### With standbys").unwrap();
    let to = 1 + page.lines().position(|line| line == "### The seal key").unwrap();
    let blocks: Vec<Block> =
        markdown::blocks(PAGE, page).into_iter().filter(|block| (from..to).contains(&block.line)).collect();
    assert!(blocks.iter().all(|block| block.mark == marked));
    for block in &blocks {
        let before: Vec<&str> = page.lines().take(block.line - 2).collect();
        match &block.content {
            Content::Commands(_) => {
                let keyring = std::fs::read(primary.data().join("pg_mask.keyring")).unwrap();
                write_keyring(&standby.data().join("pg_mask.keyring"), &keyring);
            }
            Content::Sql(script, shown) => {
                let paragraph = before.iter().rev().find(|line| line.ends_with(':')).unwrap();
                let on = if paragraph.contains("n each standby") { &standby } else { &primary };
                let ran = sql::run(on, "rotated", None, script).await;
                let shown = &shown.as_ref().unwrap().text;
                assert!(
                    ran.succeeded && is_alike(shown, &ran.printed),
                    "{PAGE}:{}: {}{}",
                    block.line,
                    ran.printed,
                    ran.errors
                );
            }
        }
        let written = &texts(&client, "SELECT pg_current_wal_lsn()::text").await[0];
        let replayed = format!("SELECT (pg_last_wal_replay_lsn() >= '{written}')::int::bigint");
        wait_until("the standby has replayed", || async { count(&reader, &replayed).await == 1 })
            .await
            .unwrap();
    }
}

const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// What the page has an operator type after `$` in the section of that title.
fn commands(title: &str) -> String {
    let section = OPERATIONS.split(&format!("## {title}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    section.lines().filter_map(|line| line.strip_prefix("$ ")).map(|line| format!("{line}\n")).collect()
}

/// On the day on which a keyring is lost, its directory was another, and variables of a backup long ago are gone.
#[tokio::test]
async fn a_backup_is_restored_and_a_lost_keyring_put_back_as_the_page_says() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("drill").await.unwrap();
    ingest(&client, &[("a", r#"{"user_id":1,"ip":"203.0.113.7"}"#), ("b", "no login")]).await;
    let page = commands("Back up and restore");
    let (restore, lost) =
        page.split_once("keyring=$(psql").and_then(|(_, rest)| rest.rsplit_once("keyring=$(psql")).unwrap();
    let begin = page.split_once("keyring=$(psql").unwrap().0;
    let script = format!(
        "set -eu
         initdb() {{ command initdb --no-sync \"$@\" && echo 'fsync = off' >>\"$DRILL/data/postgresql.conf\"; }} # quick
         here=$(mktemp --directory); trap 'rm -r \"$here\"' EXIT; cd \"$here\"; cp -r \"$SQL\" sql
         export DATA_BACKUPS=$here/data KEY_BACKUPS=$here/keys DRILL=$here/drill; mkdir data keys drill
         {begin}keyring=$(psql{restore}
         mv \"$PGDATA/pg_mask.keyring\" \"$here/lost\"; ! psql --command=\"SELECT mask_pii('1')\" 2>/dev/null; unset now keyring
         keyring=$(psql{lost}"
    );
    // The server's user may not enter the source tree.
    let sql = tempfile::tempdir().unwrap();
    std::fs::set_permissions(sql.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for file in std::fs::read_dir(testbed::root().join("sql")).unwrap().flatten() {
        std::fs::copy(file.path(), sql.path().join(file.file_name())).unwrap();
    }
    let programs = cluster.command("psql").get_program().to_owned();
    let programs = std::path::Path::new(&programs).parent().unwrap().display().to_string();
    let mut bash = cluster.shell(&script);
    bash.env("PATH", format!("{programs}:/usr/bin:/bin"))
        .env("SQL", sql.path())
        .env("PGDATA", cluster.data());
    bash.env("PGHOST", "127.0.0.1").env("PGPORT", cluster.port().to_string());
    bash.env("PGUSER", "postgres").env("PGDATABASE", "drill");
    let ended = bash.output().unwrap();
    let [printed, errors] = [ended.stdout, ended.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(ended.status.success(), "{printed}\n{errors}");
    assert!(printed.contains("the same tokens"), "{printed}\n{errors}");
    assert_eq!(texts(&client, "SELECT state FROM pgmask.health WHERE item = 'keys'").await, ["ok"]);
}
