//! What processes use, as the kernel counts it.

use crate::cluster::children;

// Where `/proc/pid/stat` has them, after the process's name (proc(5), fields 14 to 17).
const UTIME: usize = 11;
const STIME: usize = 12;
const CUTIME: usize = 13;
const CSTIME: usize = 14;

/// The memory that a process has now, in MiB.
pub(super) fn resident(pid: u32) -> f64 {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, what: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let size = |line: &str| line.strip_prefix(what)?.split_whitespace().next()?.parse::<f64>().ok();
    status.lines().find_map(size).unwrap_or(0.0) / 1024.0
}

/// CPU seconds that a process has used, and the most memory it had, in MiB.
pub(super) fn used(pid: u32) -> (f64, f64) {
    (cpu(pid, &[UTIME, STIME]), memory(pid, "VmHWM:"))
}

/// CPU seconds of a server, with its processes that have ended and those that it has.
pub(super) fn used_by_server(pid: Option<u32>) -> f64 {
    let Some(pid) = pid else { return 0.0 };
    let children = children(pid).into_iter().map(|child| cpu(child, &[UTIME, STIME]));
    cpu(pid, &[UTIME, STIME, CUTIME, CSTIME]) + children.sum::<f64>()
}

/// The sum of times, in seconds; the kernel counts ticks of 10 ms.
fn cpu(pid: u32, times: &[usize]) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    times.iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum::<f64>() / 100.0
}
