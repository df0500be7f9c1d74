//! What the system promises, tried with real servers. A file a promise.
//!
//! `make test` runs these; they need what `testbed/setup.sh` and `testbed/build.sh` make.
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod clean_up;
mod common;
mod mask_vectors;
mod redelivery;
mod set_up_errors;
mod sql_files;
mod whole_way;
