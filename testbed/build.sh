#!/bin/sh
# Builds what the demo and the tests run: the forwarder, the testbed, and the extension's library, which
# a private copy of PostgreSQL gets. One profile for all of it, so each dependency is built once.
#
#   build.sh [own|all|bench] [both|programs|extension]
#
# own: the extension for the one PostgreSQL that was chosen; all: for every one that setup.sh found;
# bench: in release mode.
set -eu
which=${1:-own} part=${2:-both}
cd "$(dirname "$0")/.."
own=$(cat target/testbed/major)

if [ "$part" != extension ]; then
    # The same choice of packages as the tests have: features are the same then, and nothing is built twice.
    case $which in
    bench) cargo build --release -p forwarder -p testbed ;;
    all) cargo build --workspace --exclude pg_mask ;;
    *) cargo build --workspace --exclude pg_mask --exclude install_script ;;
    esac
fi
if [ "$part" != programs ]; then
    case $which in
    bench) testbed/build_extension.sh "$own" release ;;
    all) for noted in target/testbed/*/pg_config; do testbed/build_extension.sh "$(basename "$(dirname "$noted")")"; done ;;
    *) testbed/build_extension.sh "$own" ;;
    esac
fi
