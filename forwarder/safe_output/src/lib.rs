//! What a program prints, where a part of it comes from others: from its caller, from servers, from the
//! network.
//!
//! - [`usage`]: errors of the command line and of variables that never show what was given, which may be a
//!   secret in the wrong place; and parsers for numbers, sizes and times that say what they expect.
//! - [`log`]: log lines as text or JSON with control characters escaped, so that a text of others can't begin
//!   a line of its own or move a terminal's cursor; and lines in place of those that may hold a secret.
//! - [`Throttle`]: the same text once in a while, and a bound on how many different ones, so that an outage
//!   does not fill the log.
//! - [`with_causes`]: an error and its causes in one line.
//! - [`Progress`]: a progress bar that log lines are written above, and not into.
//!
//! ```
//! use clap::Parser;
//! use safe_output::usage;
//! use std::time::Duration;
//!
//! #[derive(Parser)]
//! struct Flags {
//!     #[arg(long, value_parser = usage::time(Duration::ZERO..=Duration::from_secs(60), "a minute at most"))]
//!     patience: Duration,
//! }
//!
//! let error = Flags::try_parse_from(["program", "--patience=hunter2"]).err();
//! let error = error.map(|error| usage::without_values(error, &mut <Flags as clap::CommandFactory>::command()));
//! let text = error.map_or(String::new(), |error| error.to_string());
//! assert!(text.contains("--patience") && text.contains("a time, as in 500ms") && !text.contains("hunter2"));
//!
//! assert_eq!(safe_output::log::escaped("two\nlines"), "two\\nlines");
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod causes;
mod hidden;
pub mod log;
mod progress;
mod throttle;
pub mod usage;

pub use causes::{causes, with_causes};
pub use progress::Progress;
pub use throttle::Throttle;
