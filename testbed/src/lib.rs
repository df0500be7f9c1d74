//! Real servers for the demo, the tests and the benchmarks: PostgreSQL clusters with pg_mask in them,
//! and SQS emulators. Development only.
//!
//! - [`guardian`]: a server and its folder that are gone when their owner is, however it ends
//! - [`installation`]: a private copy of a PostgreSQL installation, with the extension in it
//! - [`cluster`]: a throw-away PostgreSQL cluster
//! - [`pgbouncer`]: a connection pooler before a cluster
//! - [`pipeline`]: a client that sends many statements at once
//! - [`emulator`]: LocalStack and rustack; [`queue`]: a queue there; [`forbid`]: what refuses some calls
//! - [`lost_answers`]: a network that loses answers to receives from a FIFO queue
//! - [`query_only`]: a strict SQS that knows the old Query protocol alone
//! - [`forwarder`]: the forwarder's binary, run and listened to
//! - [`http`]: a look at a page; [`http_proxy`]: what stands between a company and the internet
//! - [`prometheus`]: what scrapes a forwarder and evaluates its alerts
//! - [`proxy`]: a network that fails when told to, before either end
//! - [`sample`]: logins to show what the system does
//! - [`soak`]: full speed while everything is killed, and a sum
//! - [`demo`]: `make demo`
//! - [`mod@bench`]: `make bench`
#![forbid(unsafe_code)]

pub mod bench;
mod clock;
pub mod cluster;
pub mod demo;
pub mod emulator;
pub mod forbid;
pub mod forwarder;
pub mod guardian;
pub mod http;
pub mod http_proxy;
pub mod installation;
pub mod lost_answers;
pub mod pgbouncer;
pub mod pipeline;
pub mod prometheus;
pub mod proxy;
pub mod query_only;
pub mod queue;
pub mod sample;
pub mod soak;

/// What can go wrong in a testbed; shown to whoever develops.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The root of the source tree.
pub fn root() -> &'static std::path::Path {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Where `testbed/setup.sh` puts what it installs.
pub fn cache() -> std::path::PathBuf {
    let var = |name| std::env::var_os(name).map(std::path::PathBuf::from);
    var("PG_MASK_CACHE").unwrap_or_else(|| {
        let caches = var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|home| home.join(".cache")));
        caches.unwrap_or_else(|| "/var/cache".into()).join("pg_mask")
    })
}
