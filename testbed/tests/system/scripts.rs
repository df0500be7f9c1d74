//! Make's targets say at once what the machine lacks, before anything is built.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use testbed::root;

/// A copy of make's scripts on a machine of its own: it has Debian's programs, but neither Rust nor sudo.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: TempDir::new().unwrap() };
        let here = machine.folder.path();
        open(here, 0o755);
        for folder in ["testbed", "bin"] {
            std::fs::create_dir(here.join(folder)).unwrap();
            open(&here.join(folder), 0o755);
        }
        for file in ["Makefile", "Cargo.toml"] {
            std::fs::copy(root().join(file), here.join(file)).unwrap();
        }
        for script in std::fs::read_dir(root().join("testbed")).unwrap().flatten() {
            if script.path().extension().is_some_and(|extension| extension == "sh") {
                std::fs::copy(script.path(), here.join("testbed").join(script.file_name())).unwrap();
            }
        }
        let no_rust = |name: &str| !["cargo", "rustc", "rustup", "sudo"].contains(&name);
        for program in
            ["/usr/bin", "/usr/sbin", "/bin"].iter().flat_map(|folder| std::fs::read_dir(folder).unwrap())
        {
            let program = program.unwrap();
            if no_rust(&program.file_name().to_string_lossy()) {
                // The same name may be in two of them.
                let _ = symlink(program.path(), here.join("bin").join(program.file_name()));
            }
        }
        machine
    }

    /// A program that is there, too.
    fn program(&self, name: &str, script: &str) {
        let path = self.folder.path().join("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        open(&path, 0o755);
    }

    /// Make's answer to a user that is not root.
    fn make(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("env");
        command.arg("-i").arg(format!("PATH={}", self.folder.path().join("bin").display())).arg("LC_ALL=C");
        if rustix::process::geteuid().is_root() {
            command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        let command = command.args(["make", "--no-print-directory"]).args(arguments);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).output().unwrap()
    }
}

fn open(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// What make printed of a target that failed, but for its own last line.
fn said(target: &str, output: &Output) -> String {
    assert!(!output.status.success(), "make {target} succeeded");
    let printed = [output.stdout.as_slice(), &output.stderr].concat();
    let printed = String::from_utf8(printed).unwrap();
    printed.lines().filter(|line| !line.starts_with("make: ***")).collect::<Vec<_>>().join("\n")
}

/// It was `cargo: not found` from some line of some script.
#[test]
fn without_rust_each_target_says_how_to_get_it() {
    let machine = Machine::new();
    for target in ["demo", "test", "lint", "bench", "setup", "install", "install-forwarder", "install-script"]
    {
        let said = said(target, &machine.make(&[target]));
        assert_eq!(said.lines().count(), 1, "make {target}: {said}");
        assert!(said.starts_with("cargo is missing: pg_mask is built with Rust 1."), "make {target}: {said}");
        assert!(said.contains("https://rustup.rs"), "make {target}: {said}");
    }
}

/// It built for minutes, and then missed sudo.
#[test]
fn without_root_an_installation_ends_before_anything_is_built() {
    let machine = Machine::new();
    let here = machine.folder.path();
    // Nobody but root may write to it, or, where the tests run without root, nobody at all.
    let server = here.join("server");
    std::fs::create_dir_all(server.join("extension")).unwrap();
    std::fs::write(server.join("postgres.h"), "").unwrap();
    open(&server.join("extension"), 0o555);
    open(&server, 0o555);
    machine.program("cargo", "echo built something; exit 1");
    machine.program(
        "pg_config",
        &format!("case $1 in --version) echo PostgreSQL 17.1 ;; *) echo {} ;; esac", server.display()),
    );
    let pg_config = format!("PG_CONFIG={}", here.join("bin/pg_config").display());
    let prefix = format!("PREFIX={}/usr", server.display());
    for (arguments, place) in [
        (["install", pg_config.as_str()], server.display().to_string()),
        (["install-forwarder", prefix.as_str()], server.join("usr/bin").display().to_string()),
    ] {
        let said = said(arguments[0], &machine.make(&arguments));
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&format!("may not write to {place}, and sudo can't be used")), "{said}");
    }
    open(&server, 0o755); // so that it can be removed
}
