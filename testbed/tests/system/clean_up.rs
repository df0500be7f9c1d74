//! The testbed leaves no process and no folder behind, however its owner ends.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

async fn gone(pid: u32, folder: &Path) {
    wait_until("server and folder are gone", || async { !alive(pid) && !folder.exists() }).await.unwrap();
}

#[tokio::test]
async fn when_it_is_dropped() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (pid, data) = (cluster.pid().unwrap(), cluster.data());
    assert!(alive(pid) && data.exists());
    drop(cluster);
    gone(pid, data.parent().unwrap()).await;
}

#[tokio::test]
async fn when_a_test_panics() {
    let (to, from) = std::sync::mpsc::channel();
    let panicked = tokio::spawn(async move {
        let cluster = Cluster::start(&[]).await.unwrap();
        to.send((cluster.pid().unwrap(), cluster.data())).unwrap();
        std::panic::panic_any("on purpose");
    });
    assert!(panicked.await.is_err());
    let (pid, data) = from.recv().unwrap();
    gone(pid, data.parent().unwrap()).await;
}

/// Runs `make demo KEEP=1`'s program with a folder for all that it makes, until its servers are up.
async fn demo(temporary: &Path) -> Child {
    std::fs::set_permissions(temporary, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = testbed::forwarder::program().unwrap().with_file_name("testbed");
    // Whoever runs the tests in the background may have them, and so the demo, ignore SIGINT.
    let demo = Command::new("env")
        .arg("--default-signal=INT")
        .arg(program)
        .args(["demo", "--keep"])
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the demo has both servers up", || async {
        folders(temporary) >= 3 && has_keyring(temporary)
    })
    .await
    .unwrap();
    demo
}

fn folders(temporary: &Path) -> usize {
    std::fs::read_dir(temporary).unwrap().count()
}

/// Which `CREATE EXTENSION` makes once PostgreSQL is up.
fn has_keyring(temporary: &Path) -> bool {
    let mut folders = std::fs::read_dir(temporary).unwrap().flatten();
    folders.any(|folder| folder.path().join("data/pg_mask.keyring").exists())
}

/// The processes that run in a folder in `temporary`.
fn servers(temporary: &Path) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let runs_there = |pid: &u32| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder.starts_with(temporary))
    };
    pids.filter(runs_there).collect()
}

async fn demo_ends_by(signal: rustix::process::Signal) {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = demo(temporary.path()).await;
    assert!(servers(temporary.path()).len() >= 2);
    rustix::process::kill_process(rustix::process::Pid::from_child(&demo), signal).unwrap();
    demo.wait().unwrap();
    let gone = || async { servers(temporary.path()).is_empty() && folders(temporary.path()) == 0 };
    wait_until("servers and folders are gone", gone).await.unwrap();
}

#[tokio::test]
async fn when_the_demo_is_interrupted() {
    demo_ends_by(rustix::process::Signal::INT).await;
}

#[tokio::test]
async fn when_the_demo_is_killed() {
    demo_ends_by(rustix::process::Signal::KILL).await;
}
