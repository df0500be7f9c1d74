#!/bin/sh
# Builds what the demo and the tests run: the forwarder, the testbed, and the extension as a package
# that a private copy of PostgreSQL gets. One profile for all of it, so each dependency is built once.
#
#   build.sh [all]     all: the extension for every PostgreSQL that setup.sh found, not for one alone
set -eu
cache=${PG_MASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pg_mask}
root=$(cd "$(dirname "$0")/.." && pwd)
export PGRX_HOME="$root/target/pgrx"
testbed=$root/target/testbed

package() {
    major=$1
    if ! "$cache/cargo-pgrx-0.18.1/bin/cargo-pgrx" pgrx package --profile dev \
        --pg-config "$(cat "$testbed/$major/pg_config")" --no-default-features --features "pg$major" \
        --out-dir "$testbed/$major/package" >"$testbed/$major/package.log" 2>&1; then
        cat "$testbed/$major/package.log" >&2
        exit 1
    fi
}

cd "$root"
# The same choice of packages as the tests have: features are the same then, and nothing is built twice.
cargo build --quiet --workspace --exclude pg_mask
cd pg_mask
if [ "${1:-}" = all ]; then
    for noted in "$testbed"/*/pg_config; do package "$(basename "$(dirname "$noted")")"; done
else
    package "$(cat "$testbed/major")"
fi
