#!/bin/sh
# Builds what the demo and the tests run: the forwarder, the testbed, and the extension's library, which
# a private copy of PostgreSQL gets. One profile for all of it, so each dependency is built once.
#
#   build.sh [all|bench]     all: the extension for every PostgreSQL that setup.sh found, not for one alone;
#                            bench: in release mode
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
own=$(cat target/testbed/major)

if [ "${1:-}" = bench ]; then
    cargo build --quiet --release -p forwarder -p testbed
    testbed/build_extension.sh "$own" release
    exit
fi
# The same choice of packages as the tests have: features are the same then, and nothing is built twice.
cargo build --quiet --workspace --exclude pg_mask --exclude install_script
if [ "${1:-}" = all ]; then
    for noted in target/testbed/*/pg_config; do testbed/build_extension.sh "$(basename "$(dirname "$noted")")"; done
else
    testbed/build_extension.sh "$own"
fi
