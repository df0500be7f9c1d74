#!/bin/sh
# Every test: once with the machine's own PostgreSQL, and the extension's with each other one, too.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
own=$(cat target/testbed/major)

# Half of its time a test waits for servers.
: "${RUST_TEST_THREADS:=$(($(nproc) * 2))}"
export RUST_TEST_THREADS
# A server has a thousand small files, which take half of the time in memory: they need 4 GB, and it shall have 8.
has_room() {
    [ -w /dev/shm ] && [ "$(df --output=avail -k /dev/shm | tail -n 1)" -ge 8000000 ] &&
        [ "$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)" -ge 8000000 ] &&
        [ "$(findmnt --noheadings --output FSTYPE,OPTIONS /dev/shm | grep -cw noexec)" = 0 ]
}
if [ -z "${TMPDIR:-}" ] && has_room; then export TMPDIR=/dev/shm; fi

# The version in full, as its pg_config has it.
version() { "$(cat "target/testbed/$1/pg_config")" --version; }
echo "== $(version "$own"): everything"
PG_MASK_TEST_PG=$own cargo test --workspace --exclude pg_mask
for major in 15 16 17 18; do
    [ "$major" = "$own" ] && continue
    if [ ! -e "target/testbed/$major/pg_config" ]; then
        echo "== PostgreSQL $major: not at hand, not tested"
        continue
    fi
    echo "== $(version "$major"): the extension"
    # The same choice of packages as above: with another, their dependencies would be built once more.
    PG_MASK_TEST_PG=$major cargo test --workspace --exclude pg_mask --test promises -- extension::
done
