//! The SQL in the documentation is run, and gives what the page shows.
//!
//! A page's blocks run from top to bottom in one session of psql, as a superuser, in a database to which sql/
//! was applied. A `text` block right after an `sql` block is what psql prints; tokens, days of this test's run
//! and measured times differ from run to run and are left out of the comparison.

use std::io::Write;
use std::process::Stdio;
use testbed::cluster::Cluster;

/// An SQL block, and the output that the page shows for it.
struct Example {
    line: usize,
    sql: String,
    shown: Option<String>,
}

/// The SQL examples of a page of Markdown.
fn examples(page: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut lines = (1..).zip(page.lines());
    // Whether nothing but empty lines came since the last SQL block.
    let mut follows = false;
    while let Some((line, text)) = lines.next() {
        let Some(language) = text.strip_prefix("```") else {
            follows &= text.is_empty();
            continue;
        };
        let block: Vec<&str> =
            lines.by_ref().map(|(_, text)| text).take_while(|text| *text != "```").collect();
        let block = block.join("\n");
        match language {
            "sql" => found.push(Example { line, sql: block, shown: None }),
            "text" if follows => found.last_mut().unwrap().shown = Some(block),
            _ => {}
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

/// Runs a page's examples in a database of their own, and compares.
async fn run(cluster: &Cluster, database: &str, page: &str, text: &str) {
    drop(cluster.database(database).await.unwrap());
    let examples = examples(text);
    let mut script = String::from("\\pset footer off\n");
    for example in &examples {
        script += &format!("\\echo @@{}\n{}\n", example.line, example.sql);
    }
    let mut psql = cluster.psql(database);
    psql.arg("--quiet").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = psql.spawn().unwrap();
    running.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let ended = running.wait_with_output().unwrap();
    let printed = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{page}: {}\n{printed}", String::from_utf8_lossy(&ended.stderr));
    let mut outputs = printed.split("@@").skip(1);
    for example in &examples {
        let output = outputs.next().unwrap();
        let (line, output) = output.split_once('\n').unwrap();
        assert_eq!(line, example.line.to_string());
        if let Some(shown) = &example.shown {
            assert_eq!(comparable(output), comparable(shown), "{page}, line {}:\n{output}", example.line);
        }
    }
}

#[tokio::test]
async fn taking_over_a_table_goes_as_the_guide_says() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let text = include_str!("../../../docs/adoption.md");
    assert!(
        examples(text).len() >= 7
            && examples(text).iter().filter(|example| example.shown.is_some()).count() >= 4
    );
    run(&cluster, "adoption", "docs/adoption.md", text).await;
}

#[tokio::test]
async fn the_reference_shows_what_is_so() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let text = include_str!("../../../docs/sql.md");
    assert!(examples(text).iter().filter(|example| example.shown.is_some()).count() >= 10);
    run(&cluster, "reference", "docs/sql.md", text).await;
}
