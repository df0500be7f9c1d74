#!/bin/sh
# Formatting, lints and documentation; any finding fails.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
export PGRX_HOME="$root/target/pgrx"
major=$(cat target/testbed/major)

cargo fmt --all --check
cargo clippy --workspace --exclude pg_mask --all-targets -- -D warnings
cargo clippy -p pg_mask --no-default-features --features "pg$major" -- -D warnings
RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items --workspace --exclude pg_mask --quiet
