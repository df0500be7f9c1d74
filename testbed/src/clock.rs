//! A clock of a server's own, which a test sets: the library `clock.c`, preloaded, adds seconds to the system's.

use crate::installation::output;
use crate::{Result, root};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// The full hour that all these clocks begin with, as seconds since 1970.
const FIRST_HOUR: i64 = 1_800_000_000 / 3600 * 3600;

/// Gone with its value, so the server ends before.
#[derive(Debug)]
pub(crate) struct Clock {
    folder: TempDir,
}

impl Clock {
    /// A clock at ten minutes past its first hour.
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("pg_mask-clock-").tempdir()?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(folder.path().join("clock.so"));
        output(compile.arg(root().join("testbed/src/clock.c")))?;
        let clock = Self { folder };
        clock.set(600)?;
        Ok(clock)
    }

    /// Makes it so many seconds after the first hour.
    pub(crate) fn set(&self, second: i64) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().cast_signed();
        std::fs::write(self.path("ahead.new"), (FIRST_HOUR + second - now).to_string())?;
        std::fs::rename(self.path("ahead.new"), self.path("ahead"))?;
        Ok(())
    }

    /// What makes a command use it (`env`'s arguments).
    pub(crate) fn variables(&self) -> [String; 2] {
        [format!("LD_PRELOAD={}", self.path("clock.so")), format!("PG_MASK_CLOCK={}", self.path("ahead"))]
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}
