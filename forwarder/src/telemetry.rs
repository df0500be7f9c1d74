//! What people see of a running forwarder: [`log`] lines, a [`progress`] bar and a [`summary`] on the
//! terminal, [`metrics`] over HTTP. [`report`] keeps an outage from filling the log.

pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod summary;
