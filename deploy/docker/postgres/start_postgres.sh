#!/usr/bin/env bash
# Starts PostgreSQL by the official image's entrypoint, which takes a data directory for a database as soon
# as there is one. So where the first start was interrupted the half-made database goes first: nobody could
# write to it yet. A mark beside it says so; 05_first_start_done.sh takes the mark away.
set -euo pipefail
keyring=/var/lib/pg_mask/pg_mask.keyring
mark=${PGDATA%/*}/first-start-not-done
if [ -e "$mark" ]; then
    echo "the first start was interrupted: the database is made anew"
    rm -rf "$PGDATA"
elif [ -z "$(ls --almost-all "$PGDATA" 2>/dev/null)" ]; then
    touch "$mark"
    sync "${PGDATA%/*}"
elif [ ! -e "$keyring" ]; then
    echo "error: $keyring is missing, so no login is taken in. Put it back from your copy: docs/docker.md says how." >&2
fi
exec docker-entrypoint.sh "$@"
