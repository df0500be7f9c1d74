#!/bin/sh
# Builds the extension in release mode and installs it into the server that PG_CONFIG belongs to, or the
# newest PostgreSQL of this machine.
set -eu
cache=${PG_MASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pg_mask}
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/testbed/setup.sh" build
major=$(cat "$root/target/testbed/major")
pg_config=$(cat "$root/target/testbed/$major/pg_config")
sudo=
[ -w "$("$pg_config" --pkglibdir)" ] || sudo=--sudo

cd "$root/pg_mask"
# shellcheck disable=SC2086
PGRX_HOME="$root/target/pgrx" "$cache/cargo-pgrx-0.18.1/bin/cargo-pgrx" pgrx install --release \
    --pg-config "$pg_config" --no-default-features --features "pg$major" $sudo
echo
echo "Installed into PostgreSQL $major ($("$pg_config" --pkglibdir)). In a database of that server, as a superuser:"
echo "  CREATE EXTENSION pg_mask;"
echo "  SELECT mask_pii('203.0.113.7');"
