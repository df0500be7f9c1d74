#!/bin/sh
# Builds what the demo and the tests run: the forwarder, the testbed, and the extension as a package
# that a private copy of PostgreSQL gets. One profile for all of it, so each dependency is built once.
#
#   build.sh [all|bench]     all: the extension for every PostgreSQL that setup.sh found, not for one alone;
#                            bench: in release mode
set -eu
cache=${PG_MASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pg_mask}
root=$(cd "$(dirname "$0")/.." && pwd)
export PGRX_HOME="$root/target/pgrx"
testbed=$root/target/testbed

# package MAJOR [PROFILE FOLDER]
package() {
    major=$1 profile=${2:-dev} folder=${3:-package}
    if ! "$cache/cargo-pgrx-0.18.1/bin/cargo-pgrx" pgrx package --profile "$profile" \
        --pg-config "$(cat "$testbed/$major/pg_config")" --no-default-features --features "pg$major" \
        --out-dir "$testbed/$major/$folder" >"$testbed/$major/package.log" 2>&1; then
        cat "$testbed/$major/package.log" >&2
        exit 1
    fi
}

cd "$root"
if [ "${1:-}" = bench ]; then
    cargo build --quiet --release -p forwarder -p testbed
    cd pg_mask
    package "$(cat "$testbed/major")" release release
    exit
fi
# The same choice of packages as the tests have: features are the same then, and nothing is built twice.
cargo build --quiet --workspace --exclude pg_mask
cd pg_mask
if [ "${1:-}" = all ]; then
    for noted in "$testbed"/*/pg_config; do package "$(basename "$(dirname "$noted")")"; done
else
    package "$(cat "$testbed/major")"
fi
