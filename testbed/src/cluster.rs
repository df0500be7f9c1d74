//! A throw-away PostgreSQL cluster with pg_mask ready to be created in it.

use crate::clock::Clock;
use crate::guardian::{Guardian, free_port, wait_until};
use crate::installation::{self, Installation, output, run};
use crate::{Result, root};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

/// How long a server may refuse to start after the one before.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// A cluster, gone with its value. The superuser is `postgres` and everybody on the loopback is
/// trusted.
#[derive(Debug)]
pub struct Cluster {
    guardian: Guardian,
    installation: &'static Installation,
    port: u16,
    clock: Option<Clock>,
    template: tokio::sync::Mutex<Option<&'static str>>,
}

impl Cluster {
    /// Makes and starts a cluster with further settings (`name = value`).
    pub async fn start(settings: &[&str]) -> Result<Self> {
        Self::start_under(&[], settings).await
    }

    /// A cluster each of whose processes may use so much memory (`ulimit -v`).
    pub async fn start_with_memory(mebibytes: u64, settings: &[&str]) -> Result<Self> {
        Self::start_under(&["prlimit", &format!("--as={}", mebibytes << 20)], settings).await
    }

    /// A cluster with a clock of its own, at ten minutes past an hour. What is counted by the hour is not counted anew in
    /// the midst of a test then, whenever that runs.
    pub async fn start_with_clock(settings: &[&str]) -> Result<Self> {
        let clock = Clock::new()?;
        let [library, file] = clock.variables();
        let mut cluster = Self::start_under(&["env", &library, &file], settings).await?;
        cluster.clock = Some(clock);
        Ok(cluster)
    }

    /// Makes it so many seconds after the full hour that was before a cluster with a clock was started.
    pub fn set_clock(&self, second: i64) -> Result<()> {
        self.clock.as_ref().ok_or("the cluster has no clock of its own")?.set(second)
    }

    async fn start_under(wrapper: &[&str], settings: &[&str]) -> Result<Self> {
        let mut cluster = Self::made(installation::shared()?, wrapper, &[], settings)?;
        cluster.restart().await?;
        Ok(cluster)
    }

    /// A cluster of any PostgreSQL, made with further options for initdb, and not started yet.
    pub fn stopped(installation: &'static Installation, options: &[&str], settings: &[&str]) -> Result<Self> {
        Self::made(installation, &[], options, settings)
    }

    fn made(
        installation: &'static Installation,
        wrapper: &[&str],
        options: &[&str],
        settings: &[&str],
    ) -> Result<Self> {
        let cluster = Self::new(installation, wrapper)?;
        if options.is_empty() {
            run(Command::new("cp").arg("-a").arg(made_once(installation)?.join(".")).arg(cluster.data()))?;
        } else {
            initdb(installation, &cluster.data(), options)?;
        }
        cluster.configure(settings)?;
        Ok(cluster)
    }

    /// A hot standby of this cluster, caught up. Everybody who uses the primary sees it (`forwarder check` warns of
    /// it), so the primary is the test's own: the cluster that tests share can't be lent in this way.
    pub async fn standby(&mut self) -> Result<Self> {
        let mut standby = Self::new(self.installation, &[])?;
        let mut copy = self.command("pg_basebackup");
        copy.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--pgdata"])
            .arg(standby.data());
        run(copy.arg("--dbname").arg(self.url("postgres", "postgres")))?;
        standby.configure(&["hot_standby = on"])?;
        standby.restart().await?;
        let here: String =
            self.connect("postgres").await?.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
        let reader = standby.connect("postgres").await?;
        let caught_up = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
        wait_until("the standby has caught up", || async {
            reader.query_one(caught_up, &[&here]).await.is_ok_and(|row| row.get(0))
        })
        .await?;
        Ok(standby)
    }

    /// A server's folder, port and command, run by `wrapper`, and an empty data directory.
    fn new(installation: &'static Installation, wrapper: &[&str]) -> Result<Self> {
        let folder = Guardian::folder("cluster")?;
        let data = folder.join("data");
        let port = free_port()?;
        let postgres = installation.program("postgres").display().to_string();
        // As in a container that has it set: no error may show one.
        let environment = ["env", "RUST_BACKTRACE=1", "RUST_LIB_BACKTRACE=1"];
        let arguments = [&postgres, "-D", &data.display().to_string()];
        let server = installation.as_its_user(&[&environment[..], wrapper, &arguments[..]].concat());
        let guardian = Guardian::new(&folder, "QUIT", &server)?;
        make_data_directory(installation, &data)?;
        Ok(Self { guardian, installation, port, clock: None, template: tokio::sync::Mutex::default() })
    }

    fn configure(&self, settings: &[&str]) -> Result<()> {
        let mut conf = format!(
            "\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nfsync = off\n",
            self.port,
            self.data().display()
        );
        for setting in settings {
            conf.push_str(setting);
            conf.push('\n');
        }
        let mut file = std::fs::File::options().append(true).open(self.data().join("postgresql.conf"))?;
        file.write_all(conf.as_bytes())?;
        Ok(())
    }

    /// Starts the server, or starts it again after [`Cluster::stop`]; waits until it answers.
    pub async fn restart(&mut self) -> Result<()> {
        // Server processes of a killed postmaster end when they look for it again, which may take a while on a busy machine;
        // until then none can follow it.
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            self.guardian.start()?;
            let answers = async || self.connect("postgres").await.is_ok();
            let settled = || async { answers().await || !self.guardian.is_running() };
            wait_until("PostgreSQL answers", settled).await?;
            if self.guardian.is_running() {
                return Ok(());
            }
            self.guardian.stop("KILL")?;
            tokio::time::sleep(PAUSE).await;
        }
        Err(format!("PostgreSQL does not start\n{}", self.guardian.log()).into())
    }

    /// Stops the server: `INT` is a fast shutdown, `QUIT` an immediate one, `KILL` a crash of all of its processes: one that
    /// waits for a lock of another that was killed does not notice that the postmaster is gone, and keeps its memory.
    pub fn stop(&mut self, signal: &str) -> Result<()> {
        let children =
            if signal == "KILL" { self.pid().map(children).unwrap_or_default() } else { Vec::new() };
        self.guardian.stop(signal)?;
        for child in children.into_iter().filter_map(|child| Pid::from_raw(child.cast_signed())) {
            // Most have ended by themselves.
            let _ = kill_process(child, Signal::KILL);
        }
        Ok(())
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> Option<u32> {
        self.guardian.pid()
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.guardian.path().join("data")
    }

    /// The server's major version.
    pub fn major(&self) -> u32 {
        self.installation.major
    }

    /// The PostgreSQL that runs it.
    pub fn installation(&self) -> &'static Installation {
        self.installation
    }

    /// The port on the loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        self.guardian.log()
    }

    /// A URL for `user`, without a password.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// Connects as the superuser.
    pub async fn connect(&self, database: &str) -> Result<Client> {
        self.connect_as("postgres", database).await
    }

    /// Connects as `user`.
    pub async fn connect_as(&self, user: &str, database: &str) -> Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(user, database), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A PostgreSQL program, to be run as the server's user.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.installation.program(program));
        command.current_dir(self.guardian.path()).env("LC_ALL", "C.UTF-8");
        as_its_user(&mut command, self.installation);
        command
    }

    /// A script of bash, to be run as the server's user.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command.arg("-c").arg(script).current_dir(self.guardian.path()).env("LC_ALL", "C.UTF-8");
        as_its_user(&mut command, self.installation);
        command
    }

    /// psql as the superuser, without the user's own settings.
    pub fn psql(&self, database: &str) -> Command {
        let mut psql = self.command("psql");
        psql.args(["--no-psqlrc", "--set=ON_ERROR_STOP=1", "--dbname", &self.url("postgres", database)]);
        psql
    }

    /// Applies the DBA's files in `sql/`, in order, to a database; not the optional ones.
    pub fn apply_sql(&self, database: &str) -> Result<()> {
        for file in ["00_roles.sql", "01_user_logins.sql", "02_rights.sql", "03_analyst_views.sql"] {
            self.apply_file(database, file)?;
        }
        Ok(())
    }

    /// Applies one of the DBA's files in `sql/`, such as an optional one. One at a time: roles are the whole server's, and
    /// PostgreSQL refuses to change one twice at once.
    pub fn apply_file(&self, database: &str, file: &str) -> Result<()> {
        static APPLIES: Mutex<()> = Mutex::new(());
        let _applies = APPLIES.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = std::fs::File::open(root().join("sql").join(file))?;
        output(self.psql(database).arg("--quiet").stdin(sql))?;
        Ok(())
    }

    /// A new database with pg_mask and the DBA's files applied.
    pub async fn database(&self, name: &str) -> Result<Client> {
        let admin = self.connect("postgres").await?;
        // One at a time: roles and the template are the whole server's.
        let template = self.template.lock().await;
        let Some(template) = *template else {
            admin.batch_execute(&format!("CREATE DATABASE {name}")).await?;
            self.apply_sql(name)?;
            return self.connect(name).await;
        };
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await?;
        let client = self.connect(name).await?;
        // The id is what CREATE EXTENSION gives each database of its own.
        client
            .batch_execute("DELETE FROM pgmask.database_id; INSERT INTO pgmask.database_id DEFAULT VALUES")
            .await?;
        Ok(client)
    }

    /// Has [`Cluster::database`] give copies of one database from now on, which is five times as quick: for a cluster
    /// with many.
    pub async fn make_template(&self) -> Result<()> {
        const TEMPLATE: &str = "of_testbed";
        drop(self.database(TEMPLATE).await?);
        let admin = self.connect("postgres").await?;
        admin.batch_execute(&format!("ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false")).await?;
        // A database that is in use can't be copied.
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1::text";
        wait_until("the template is free", || async {
            admin.query_one(sessions, &[&TEMPLATE]).await.is_ok_and(|row| row.get::<_, i64>(0) == 0)
        })
        .await?;
        *self.template.lock().await = Some(TEMPLATE);
        Ok(())
    }
}

/// What initdb makes, once for each installation: clusters get a copy, which is ten times as quick.
fn made_once(installation: &Installation) -> Result<PathBuf> {
    static MADE: Mutex<BTreeMap<u32, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(made) = made.get(&installation.major) {
        return Ok(made.clone());
    }
    let data = installation.path().join("made_once");
    make_data_directory(installation, &data)?;
    initdb(installation, &data, &[])?;
    made.insert(installation.major, data.clone());
    Ok(data)
}

/// An empty folder that PostgreSQL takes for its data.
fn make_data_directory(installation: &Installation, data: &Path) -> Result<()> {
    std::fs::create_dir(data)?;
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700))?;
    if let Some(user) = installation.user {
        chown(data, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

fn initdb(installation: &Installation, data: &Path, options: &[&str]) -> Result<()> {
    let mut initdb = Command::new(installation.program("initdb"));
    initdb.current_dir(data).env("LC_ALL", "C.UTF-8").arg("-D").arg(data);
    initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    as_its_user(&mut initdb, installation);
    run(initdb.args(options))
}

/// Has a command run as the servers' user.
fn as_its_user(command: &mut Command, installation: &Installation) {
    if let Some(user) = installation.user {
        command.uid(user.uid).gid(user.gid);
    }
}

/// The processes that a server has started.
pub(crate) fn children(server: u32) -> Vec<u32> {
    let children =
        std::fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}
