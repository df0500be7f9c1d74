#!/usr/bin/env bash
# Builds the extension in release mode and installs it into the server that PG_CONFIG belongs to, or else
# the newest PostgreSQL of this machine. DESTDIR is put before every path, as packages want it.
set -euo pipefail
cd "$(dirname "$0")/.."
pg_config=$(testbed/find_postgresql.sh) || [ $? = 1 ] || exit 1
if [ -z "$pg_config" ]; then
    echo "install: no PostgreSQL with its headers was found; install them, or set PG_CONFIG" >&2
    exit 1
fi
library=${DESTDIR:-}$("$pg_config" --pkglibdir)
extension=${DESTDIR:-}$("$pg_config" --sharedir)/extension

# Before minutes of building: may it be written to?
sudo=()
if [ -z "${DESTDIR:-}" ] && { [ ! -w "$library" ] || [ ! -w "$extension" ]; }; then
    if ! command -v sudo >/dev/null || ! sudo -v; then
        echo "install: $library is not yours to write to, and sudo can't be used; run make install as root" >&2
        exit 1
    fi
    sudo=(sudo)
fi

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
