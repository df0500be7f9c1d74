#!/bin/sh
# Every test: once with the machine's own PostgreSQL, and the extension's with each other one, too.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
own=$(cat target/testbed/major)
echo "== PostgreSQL $own: everything"
PG_MASK_TEST_PG=$own cargo test --workspace --exclude pg_mask
for noted in target/testbed/*/pg_config; do
    major=$(basename "$(dirname "$noted")")
    [ "$major" = "$own" ] && continue
    echo "== PostgreSQL $major: the extension"
    # The same choice of packages as above: with another, their dependencies would be built once more.
    PG_MASK_TEST_PG=$major cargo test --workspace --exclude pg_mask --test promises -- extension::
done
