//! The documentation is run: the SQL blocks and shell commands of a page, from top to bottom, on real servers, and
//! what they print is compared with what the page shows. A fault is told by file and line.
//!
//! [`markdown`] says what a page may hold, [`comparison`] what may differ. The kinds of things to run have a file
//! each: [`sql`], [`shell`], and two that are checked by name and not run, [`make`] and [`docker`].
//!
//! After a change of a page, `PG_MASK_TEST_WRITE=1` writes what is printed into it; look at the difference.

pub(crate) mod comparison;
pub(crate) mod docker;
pub(crate) mod make;
pub(crate) mod markdown;
pub(crate) mod shell;
pub(crate) mod sql;

use crate::common::write_keyring;
use markdown::{Block, Command, Content, Mark, Shown};
use shell::{Folder, Shell};
use std::time::{Duration, Instant};
use testbed::cluster::Cluster;
use testbed::queue::Queue;
use testbed::{installation, sample};

/// What one of them left.
pub(crate) struct Ran {
    pub(crate) printed: String,
    pub(crate) errors: String,
    pub(crate) succeeded: bool,
}

/// Always the same keys, so that the pages can show tokens as they are.
const KEYRING: &str = r#"{"format":"pg_mask keyring v1",
    "generations":[{"generation":1,"key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","created_at":"2026-11-01T00:00:00Z"}],
    "seal":[{"id":1,"key":"202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f","created_at":"2026-11-01T00:00:00Z"}]}"#;

/// Nothing on a page takes that long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a page is run: a server with a database to which `sql/` was applied, and a folder for its commands.
pub(crate) struct Place {
    pub(crate) cluster: Cluster,
    pub(crate) folder: Folder,
    database: &'static str,
    /// Further variables of the shells.
    pub(crate) variables: Vec<(String, String)>,
    /// What is run instead of words of a page, and printed as these: names that don't lead here.
    pub(crate) instead: Vec<(&'static str, String)>,
    /// Where a forwarder finds the messages of the demo each time that a page starts one.
    pub(crate) queue: Option<Queue>,
}

impl Place {
    pub(crate) async fn new(database: &'static str, settings: &[&str]) -> Self {
        let mut cluster = Cluster::stopped(installation::shared().unwrap(), &[], settings).unwrap();
        write_keyring(&cluster.data().join("pg_mask.keyring"), KEYRING.as_bytes());
        cluster.restart().await.unwrap();
        let admin = cluster.database(database).await.unwrap();
        // Others make things that bare names mean. A superuser gives the schema of each, and these pages show how.
        admin.batch_execute("ALTER ROLE postgres SET search_path = ''").await.unwrap();
        let folder = Folder::new(&cluster);
        Self { cluster, folder, database, variables: Vec::new(), instead: Vec::new(), queue: None }
    }

    /// Runs a page.
    pub(crate) async fn run(&mut self, path: &'static str) {
        let text = std::fs::read_to_string(testbed::root().join(path)).unwrap();
        let to_write = self.run_text(path, &text).await;
        if is_to_write() {
            std::fs::write(testbed::root().join(path), rewritten(&text, to_write)).unwrap();
        }
    }

    /// Runs what is in a page; returns what it should show in place of what it shows.
    async fn run_text(&mut self, path: &'static str, text: &str) -> Vec<(Shown, String)> {
        let mut page = Page { path, role: None, shells: [None, None], to_write: Vec::new(), place: self };
        for block in markdown::blocks(path, text) {
            page.run(block).await;
        }
        page.to_write
    }
}

/// A page while it is run.
struct Page<'a> {
    path: &'static str,
    place: &'a mut Place,
    role: Option<String>,
    /// The server's user's, and root's.
    shells: [Option<Shell>; 2],
    /// What differs from the page.
    to_write: Vec<(Shown, String)>,
}

impl Page<'_> {
    async fn run(&mut self, block: Block) {
        let began = Instant::now();
        let line = block.line;
        self.run_block(block).await;
        // Shown with --nocapture, or when something fails.
        println!("{}:{line}: {:.1?}", self.path, began.elapsed());
    }

    async fn run_block(&mut self, block: Block) {
        match block.mark {
            Some(Mark::NotRun(_)) => return,
            Some(Mark::RunBy(test)) => return is_run_by(self.path, block.line, &test),
            Some(Mark::RunAs(role)) => self.role = Some(role),
            None => {}
        }
        match block.content {
            Content::Sql(script, shown) => {
                let Place { cluster, database, .. } = &self.place;
                let script = self.here(&script);
                let ran = sql::run(cluster, database, self.role.as_deref(), &script);
                let ran = tokio::time::timeout(PATIENCE, ran).await;
                self.look(block.line, ran.ok(), shown);
            }
            Content::Commands(commands) => {
                for command in commands {
                    self.run_command(command).await;
                }
            }
        }
    }

    async fn run_command(&mut self, command: Command) {
        let (path, line) = (self.path, command.line);
        if make::is_one(&command.text) {
            assert_eq!(make::fault(&command.text), None, "{path}:{line}:");
            return;
        }
        if docker::is_one(&command.text) {
            assert_eq!(docker::fault(&command.text), None, "{path}:{line}:");
            return;
        }
        if command.text.starts_with("pg_ctl restart ") {
            // The server is the testbed's to start, which takes it away in the end.
            self.place.cluster.stop("INT").unwrap();
            self.place.cluster.restart().await.unwrap();
            return;
        }
        let words: Vec<&str> = command.text.split(" #").next().unwrap().split_whitespace().collect();
        if let (["forwarder"] | ["forwarder", "--drain"], Some(queue)) = (&words[..], &self.place.queue) {
            queue.send(&sample::bodies()).await.unwrap();
        }
        let text = self.here(&command.text);
        let place = &self.place;
        let shell = self.shells[usize::from(command.is_of_root)].get_or_insert_with(|| {
            Shell::start(&place.cluster, place.database, &place.folder, &place.variables, command.is_of_root)
        });
        let ran = tokio::time::timeout(PATIENCE, shell.run(&text)).await;
        self.look(line, ran.ok(), command.shown);
    }

    /// A text of the page as it can be run here.
    fn here(&self, text: &str) -> String {
        self.place.instead.iter().fold(text.to_owned(), |text, (word, here)| text.replace(word, here))
    }

    fn look(&mut self, line: usize, ran: Option<Ran>, shown: Option<Shown>) {
        let path = self.path;
        let Some(ran) = ran else { panic!("{path}:{line}: does not end") };
        let Ran { printed, errors, succeeded } = ran;
        // A page may show that something fails.
        let shows_error = shown.as_ref().is_some_and(|shown| shown.text.contains("ERROR: "));
        assert_ne!(succeeded, shows_error, "{path}:{line}: {errors}\n{printed}");
        let Some(shown) = shown else { return };
        let printed = if shows_error { printed + &errors } else { printed };
        let printed = self.place.instead.iter().fold(printed, |text, (word, here)| text.replace(here, word));
        if comparison::is_alike(&shown.text, &printed) {
            return;
        }
        assert!(
            is_to_write(),
            "{path}:{}: this is shown:\n{}\nand this is printed:\n{printed}\n{errors}",
            shown.line,
            shown.text
        );
        self.to_write.push((shown, printed));
    }
}

fn is_to_write() -> bool {
    std::env::var_os("PG_MASK_TEST_WRITE").is_some()
}

/// The test that a mark names is there, and reads the page.
fn is_run_by(path: &str, line: usize, test: &str) {
    let file = testbed::root().join("testbed/tests").join(test.replace("::", "/")).with_extension("rs");
    let source = std::fs::read_to_string(file);
    let source = source.unwrap_or_else(|_| panic!("{path}:{line}: there is no test {test}"));
    assert!(
        source.contains(&format!("\"../../../{path}\"")),
        "{path}:{line}: {test} does not read this page"
    );
}

/// A page with what was printed in place of what it shows.
fn rewritten(page: &str, mut to_write: Vec<(Shown, String)>) -> String {
    let mut lines: Vec<String> = page.lines().map(str::to_owned).collect();
    to_write.sort_by_key(|(shown, _)| std::cmp::Reverse(shown.line));
    for (shown, printed) in to_write {
        let indent = " ".repeat(shown.indent);
        let printed = printed.trim_matches('\n').lines().map(|line| format!("{indent}{line}"));
        lines.splice(shown.line - 1..shown.line - 1 + shown.lines, printed);
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::panic::AssertUnwindSafe;

    /// What is said of a page.
    async fn fault(place: &mut Place, page: &str) -> Option<String> {
        let ran = AssertUnwindSafe(place.run_text("page.md", page)).catch_unwind().await;
        ran.err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
    }

    #[tokio::test]
    async fn what_is_wrong_in_a_page_is_told_by_its_line() {
        let mut place = Place::new("faults", &[]).await;
        let good = "```sql\nSELECT 1 AS one;\n```\n```text\n one \n-----\n   1\n```\n
```console\n$ x=2\n# true\n$ echo \\\n  $x\n2\n```\n
<!-- run as: pgmask_analyst -->\n```sql\nSELECT current_user;\n```\n```text\n current_user\n pgmask_analyst\n```\n
```sql\nSELECT 1/0;\n```\n```text\nERROR:  division by zero\n```\n
<!-- not run: as an example -->\n```console\n$ false\n```\n";
        assert_eq!(fault(&mut place, good).await, None);
        if is_to_write() {
            return;
        }
        for (line, wrong) in [
            (5, good.replace("   1\n", "   2\n")),
            (15, good.replace("\n2\n", "\n3\n")),
            (12, good.replace("# true", "# false")),
            (11, good.replace("$ x=2", "$ no_such_program")),
            (28, good.replace("1/0", "1/1")),
            (18, good.replace("run as", "sung by")),
            (40, format!("{good}\n```console\n$ make tea\n```\n")),
        ] {
            let said =
                fault(&mut place, &wrong).await.unwrap_or_else(|| panic!("nothing is said of:\n{wrong}"));
            assert!(said.contains(&format!("page.md:{line}:")), "expected line {line}: {said}");
        }
    }
}
