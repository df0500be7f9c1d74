//! Flow control for a program that receives messages in one place and has them stored in another.
//!
//! A source may have any number of messages, of any size, and the place where they go may be slow or away.
//! This library has what keeps such a program within bounds. It knows no protocol and makes no call:
//!
//! - A [`Budget`] bounds how many messages, and how many bytes, are held at once, so that memory is bounded by
//!   what is held and not by what the source has.
//! - [`InFlight`] is the table of what is held. A source that hides a message from others for a time, a lease,
//!   wants it renewed: the table tells which leases are due.
//! - A [`Limiter`] adapts how many requests are under way to how quickly they are answered.
//! - [`Backoff`] says how long to wait before trying again.
//!
//! ```
//! use flow_control::{Budget, InFlight};
//! use std::sync::Arc;
//! use std::time::{Duration, Instant, SystemTime};
//!
//! # async fn example() {
//! // 10,000 messages and 64 MiB at most; an answer has 1 MiB at most. A message is leased for a minute, and
//! // its lease can be renewed for an hour.
//! let budget = Arc::new(Budget::new(10_000, 64 << 20, 1 << 20));
//! let in_flight = Arc::new(InFlight::new(Duration::from_secs(60), Duration::from_secs(3600)));
//!
//! let reservation = budget.reserve(10).await; // before ten messages are asked for
//! let requested_at = Instant::now();
//! reservation.wait_until_readable(Some(2_000)).await; // the answer says that it has 2,000 bytes
//! let permits = reservation.into_permits(&[700, 900]); // it had two messages of these sizes
//! for (permit, handle) in permits.into_iter().zip(["first", "second"]) {
//!     let guard = in_flight.enter(handle.into(), permit, requested_at, Some(SystemTime::now()));
//!     drop(guard); // the message is settled: its permit is free again
//! }
//! # }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod backoff;
mod budget;
mod in_flight;
mod limiter;

pub use backoff::{Backoff, jittered};
pub use budget::{Budget, Permit, Reservation};
pub use in_flight::{Due, Guard, InFlight};
pub use limiter::Limiter;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose data is whole even if a thread panicked while it held the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
