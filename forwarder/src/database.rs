//! The database: [`connection`] has the one function that takes messages in, [`pool`] the connections that
//! writers share, and [`refusal`] says what an error means. [`pg_settings`] connects.

mod connection;
mod pool;
mod refusal;

pub(crate) use connection::{Counts, Database, settings};
pub(crate) use pool::{Failing, Opener, Pool, try_out};
pub(crate) use refusal::{At, lacks_right, sqlstate};
