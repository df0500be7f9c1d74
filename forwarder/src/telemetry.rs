//! What people see of a running forwarder: [`log`] lines, [`metrics`] over HTTP, and at
//! the end the [`tally`].

pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod tally;
