//! What people see of a running forwarder: [`log`] lines, a [`progress`] bar, [`metrics`] over HTTP, and at
//! the end the [`tally`]. [`report`] keeps an outage from filling the log.

pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod tally;
