#!/bin/sh
# Builds what the demo and the tests run: the forwarder, the testbed, and the extension as a package
# that a private copy of PostgreSQL gets. One profile for all of it, so each dependency is built once.
set -eu
cache=${PG_MASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pg_mask}
root=$(cd "$(dirname "$0")/.." && pwd)
export PGRX_HOME="$root/target/pgrx"
pg_config=$(cat "$root/target/testbed/pg_config")
major=$("$pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')

cd "$root"
cargo build --quiet -p forwarder -p testbed
cd pg_mask
if ! "$cache/cargo-pgrx-0.18.1/bin/cargo-pgrx" pgrx package --profile dev --pg-config "$pg_config" \
    --no-default-features --features "pg$major" --out-dir ../target/testbed/package >../target/testbed/package.log 2>&1; then
    cat ../target/testbed/package.log >&2
    exit 1
fi
