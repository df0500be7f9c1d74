#!/usr/bin/env bash
# Builds in release mode and installs:
#
#   install.sh extension     into the server that PG_CONFIG belongs to, or else this machine's newest PostgreSQL
#   install.sh forwarder     into PREFIX/bin, /usr/local/bin unless PREFIX is given
#
# DESTDIR is put before every path, as packages want it. What is missing is said before anything is built.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-extension}

# Sets sudo to the command that is needed, if any, to write into the folders.
sudo=()
may_write() {
    local folder target
    for folder; do
        target=$folder
        while [ ! -e "$folder" ]; do folder=$(dirname "$folder"); done
        [ -w "$folder" ] && continue
        if ! command -v sudo >/dev/null || ! sudo -v; then
            echo "install: $(id -un) may not write to $target, and sudo can't be used; run make as root, or choose another place: ${chooses}" >&2
            exit 1
        fi
        sudo=(sudo)
    done
}

testbed/rust.sh
case $what in
extension)
    chooses="PG_CONFIG names another server's pg_config"
    pg_config=$(testbed/find_postgresql.sh) || [ $? = 1 ] || exit 1
    if [ -z "$pg_config" ]; then
        echo "install: no PostgreSQL with its headers was found; install them (on Debian: $(testbed/packages.sh build | grep postgresql | paste -sd ' ')), or set PG_CONFIG to your server's pg_config" >&2
        exit 1
    fi
    library=${DESTDIR:-}$("$pg_config" --pkglibdir)
    extension=${DESTDIR:-}$("$pg_config" --sharedir)/extension
    may_write "$library" "$extension"

    testbed/setup.sh build
    major=$(cat target/testbed/major)
    testbed/build_extension.sh "$major" release
    "${sudo[@]}" install -d "$library" "$extension"
    "${sudo[@]}" install -m 0755 "target/testbed/$major/release/pg_mask.so" "$library/"
    "${sudo[@]}" install -m 0644 pg_mask/pg_mask.control pg_mask/sql/*.sql "$extension/"

    echo
    echo "Installed into PostgreSQL $major ($library). In a database of that server, as a superuser:"
    echo "  CREATE EXTENSION pg_mask;"
    echo "  SELECT mask_pii('203.0.113.7');"
    ;;
forwarder)
    chooses="PREFIX=\$HOME/.local"
    bin=${DESTDIR:-}${PREFIX:-/usr/local}/bin
    may_write "$bin"

    testbed/setup.sh forwarder
    cargo build --release --locked --package forwarder
    "${sudo[@]}" install -D -m 0755 target/release/forwarder "$bin/forwarder"

    echo
    echo "Installed $bin/forwarder. It says what it needs with --help, and tries it with check."
    ;;
*)
    echo "install: install.sh extension|forwarder, not $what" >&2
    exit 2
    ;;
esac
