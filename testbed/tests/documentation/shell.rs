//! Shell commands: one bash for a page, so that what a command sets, later ones have.
//!
//! It runs as the server's user, in a folder of its own with copies of `sql/` and `testbed/data/`, with the server's
//! programs in its path and the variables that lead to the server and, where there is one, the queue. Commands of root
//! run in a second one, as the user of the tests.

use super::Ran;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;
use testbed::cluster::Cluster;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Ends what a command prints.
const END: &str = "@@ended ";

pub(crate) struct Shell {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// The file of what its commands print as errors.
    errors: PathBuf,
}

/// The folder that the shells of a page work in, gone with its value.
pub(crate) struct Folder(TempDir);

impl Folder {
    /// Makes one for the server's user.
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let folder = tempfile::Builder::new().prefix("pg_mask-page-").tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("testbed")).unwrap();
        for (from, to) in [("sql", "sql"), ("testbed/data", "testbed/data")] {
            let from = testbed::root().join(from);
            testbed::installation::run(
                std::process::Command::new("cp").arg("-r").arg(from).arg(folder.path().join(to)),
            )
            .unwrap();
        }
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        if let Some(user) = cluster.installation().user {
            chown(folder.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes a program there, which the shells find before all others.
    pub(crate) fn add_program(&self, name: &str, script: &str) {
        let path = self.path().join("bin").join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

impl Shell {
    /// Starts one, of root or of the server's user.
    pub(crate) fn start(
        cluster: &Cluster,
        database: &str,
        folder: &Folder,
        variables: &[(String, String)],
        is_of_root: bool,
    ) -> Self {
        let folder = folder.path().to_owned();
        let errors = folder.join(if is_of_root { "errors-of-root" } else { "errors" });
        std::fs::write(&errors, "").unwrap();
        std::fs::set_permissions(&errors, PermissionsExt::from_mode(0o666)).unwrap();
        let mut bash = Command::new("bash");
        bash.args(["--noprofile", "--norc", "-c"])
            .arg(format!(
                "exec 2>>{}; while read -r script; do . \"$script\" </dev/null; ended=$?; echo; echo \"{END}$ended\"; done",
                errors.display()
            ))
            .env_clear()
            .env(
                "PATH",
                format!(
                    "{}:{}:/usr/bin:/bin",
                    folder.join("bin").display(),
                    cluster.installation().bin().display()
                ),
            )
            .envs([("HOME", folder.as_path()), ("TMPDIR", &folder), ("PGDATA", &cluster.data())])
            .envs([
                ("LC_ALL", "C.UTF-8"),
                ("PGHOST", "127.0.0.1"),
                ("PGUSER", "postgres"),
                ("PGDATABASE", database),
            ])
            .env("PGPORT", cluster.port().to_string())
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        if let Some(user) = cluster.installation().user.filter(|_| !is_of_root) {
            bash.uid(user.uid).gid(user.gid);
        }
        let mut child = bash.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, input, output, errors }
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&mut self, command: &str) -> Ran {
        let script = self.errors.with_extension("command");
        std::fs::write(&script, command).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o644)).unwrap();
        std::fs::File::options().write(true).open(&self.errors).unwrap().set_len(0).unwrap();
        self.input.write_all(format!("{}\n", script.display()).as_bytes()).await.unwrap();
        let mut printed = String::new();
        loop {
            let Some(line) = self.output.next_line().await.unwrap() else {
                break self.ended(printed, false);
            };
            if let Some(code) = line.strip_prefix(END) {
                break self.ended(printed, code == "0");
            }
            printed.push_str(&line);
            printed.push('\n');
        }
    }

    fn ended(&self, printed: String, succeeded: bool) -> Ran {
        let errors = std::fs::read(&self.errors).unwrap();
        Ran { printed, errors: String::from_utf8_lossy(&errors).into_owned(), succeeded }
    }
}
