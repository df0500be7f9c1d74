//! The SQL in the documentation is run, and gives what the page shows.
//!
//! A page's blocks run from top to bottom, as a superuser, in a database to which sql/ was applied. A `text`
//! block right after an `sql` block is what psql prints; tokens, days of this test's run and measured times
//! differ from run to run and are left out of the comparison.

use crate::common::{count, ingest, texts, write_keyring};
use std::io::Write;
use std::process::Stdio;
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;
use testbed::sample;

/// An SQL block, and the output that the page shows for it.
struct Example {
    line: usize,
    /// What the page says and shows between the block before and this one.
    before: String,
    sql: String,
    shown: Option<String>,
}

/// The SQL examples of a page of Markdown.
fn examples(page: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut lines = (1..).zip(page.lines());
    let mut before = String::new();
    // Whether nothing but empty lines came since the last SQL block.
    let mut follows = false;
    while let Some((line, text)) = lines.next() {
        let Some(language) = text.strip_prefix("```") else {
            follows &= text.is_empty();
            before += text;
            before.push('\n');
            continue;
        };
        let block: Vec<&str> =
            lines.by_ref().map(|(_, text)| text).take_while(|text| *text != "```").collect();
        let block = block.join("\n");
        match language {
            "sql" => {
                found.push(Example { line, before: std::mem::take(&mut before), sql: block, shown: None });
            }
            "text" if follows => found.last_mut().unwrap().shown = Some(block),
            _ => before += &block,
        }
        follows = language == "sql";
    }
    found
}

/// A text as it is compared: without what differs from run to run.
fn comparable(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            // Widths follow from what is left out: rulers and runs of spaces are no matter.
            let words: Vec<String> = line
                .split([' ', '|', '+'])
                .filter(|word| !word.is_empty() && !word.bytes().all(|byte| byte == b'-'))
                .map(|word| if is_of_the_run(word) { "…".to_owned() } else { word.to_owned() })
                .collect();
            words.join(" ")
        })
        .filter(|line| !line.is_empty())
        .collect()
}

/// A token, what is shortened by an ellipsis, or a day.
fn is_of_the_run(word: &str) -> bool {
    let is_token =
        word.strip_prefix('m').and_then(|rest| rest.split_once('_')).is_some_and(|(number, digits)| {
            number.bytes().all(|byte| byte.is_ascii_digit()) && digits.len() == 64
        });
    let is_day = word.len() == 10 && word.starts_with("20") && word.matches('-').count() == 2;
    is_token || is_day || word.ends_with('…')
}

impl Example {
    fn compare(&self, page: &str, printed: &str) {
        if let Some(shown) = &self.shown {
            assert_eq!(comparable(printed), comparable(shown), "{page}, line {}:\n{printed}", self.line);
        }
    }
}

/// What psql prints for a script.
fn printed(cluster: &Cluster, database: &str, page: &str, script: &str) -> String {
    let mut psql = cluster.psql(database);
    psql.arg("--quiet").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = psql.spawn().unwrap();
    let script = format!("\\pset footer off\n{script}\n");
    running.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let ended = running.wait_with_output().unwrap();
    let printed = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{page}: {}\n{printed}", String::from_utf8_lossy(&ended.stderr));
    printed
}

/// Runs a page's examples, at least `least` of which show what is printed, in a database of their own, and compares.
async fn run(database: &str, page: &str, text: &str, least: usize) {
    let cluster = Cluster::start(&[]).await.unwrap();
    drop(cluster.database(database).await.unwrap());
    let examples = examples(text);
    assert!(examples.iter().filter(|example| example.shown.is_some()).count() >= least);
    // In one session, whose temporary objects later blocks use.
    let script: String =
        examples.iter().map(|example| format!("\\echo @@{}\n{}\n", example.line, example.sql)).collect();
    let printed = printed(&cluster, database, page, &script);
    let mut outputs = printed.split("@@").skip(1);
    for example in &examples {
        let (line, output) = outputs.next().unwrap().split_once('\n').unwrap();
        assert_eq!(line, example.line.to_string());
        example.compare(page, output);
    }
}

#[tokio::test]
async fn taking_over_a_table_goes_as_the_guide_says() {
    run("adoption", "docs/adoption.md", include_str!("../../../docs/adoption.md"), 4).await;
}

#[tokio::test]
async fn the_reference_shows_what_is_so() {
    run("reference", "docs/sql.md", include_str!("../../../docs/sql.md"), 10).await;
}

/// The blocks of the section run on the server that the page names, and the keyring is copied where it says so.
#[tokio::test]
async fn a_rotation_with_a_standby_goes_as_the_page_says() {
    const PAGE: &str = "docs/operations.md";
    let primary = Cluster::start(&["wal_level = replica", "max_wal_senders = 4"]).await.unwrap();
    let client = primary.database("rotated").await.unwrap();
    let messages: Vec<(String, String)> =
        (0..).map(|n: u32| format!("message {n}")).zip(sample::bodies()).collect();
    ingest(&client, &messages).await;
    let standby = primary.standby().await.unwrap();
    let reader = standby.connect("rotated").await.unwrap();
    let page = include_str!("../../../docs/operations.md");
    let section = page.split("### With standbys").nth(1).unwrap().split("\n### ").next().unwrap();
    let examples = examples(section);
    assert_eq!(examples.iter().filter(|example| example.shown.is_some()).count(), 4);
    for example in &examples {
        if example.before.contains("$ scp ") {
            let keyring = std::fs::read(primary.data().join("pg_mask.keyring")).unwrap();
            write_keyring(&standby.data().join("pg_mask.keyring"), &keyring);
        }
        let on = if example.before.contains("On each standby") { &standby } else { &primary };
        example.compare(PAGE, &printed(on, "rotated", PAGE, &example.sql));
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

/// Each SQL block of the page that is for one server alone, from top to bottom.
#[tokio::test]
async fn the_sql_of_the_operations_page_runs() {
    let cluster = Cluster::start(&[]).await.unwrap();
    drop(cluster.database("operated").await.unwrap());
    // Those for standbys and subscribers are run on such servers.
    let elsewhere = ["PUBLICATION", "synchronous_standby_names = 'ANY"];
    let blocks: Vec<Example> = examples(OPERATIONS)
        .into_iter()
        .filter(|example| !elsewhere.iter().any(|word| example.sql.contains(word)))
        .collect();
    assert!(blocks.len() > 15);
    let script: String = blocks.iter().map(|block| format!("{}\n", block.sql)).collect();
    printed(&cluster, "operated", "docs/operations.md", &script);
}
