//! What is measured of something that carries messages.

/// What it took to carry messages.
pub(super) struct Run {
    /// Messages a second.
    pub(super) rate: f64,
    /// Of the carrying processes, for a message, in µs.
    pub(super) cpu: f64,
    /// What they had at most, in MiB.
    pub(super) memory: f64,
    /// CPU of the queue's server and of PostgreSQL, for a message, in µs.
    pub(super) servers: [f64; 2],
}
