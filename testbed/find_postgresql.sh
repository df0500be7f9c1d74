#!/bin/sh
# The pg_config of the PostgreSQL to build for: what PG_CONFIG says, or else the newest supported one of
# Debian's that is complete with server and headers.
set -eu
if [ -n "${PG_CONFIG:-}" ]; then
    if ! headers=$("$PG_CONFIG" --includedir-server 2>/dev/null); then
        echo "PG_CONFIG: $PG_CONFIG does not run; give the path of your server's pg_config" >&2
        exit 2
    fi
    if [ ! -f "$headers/postgres.h" ]; then
        echo "PG_CONFIG: this PostgreSQL's headers are missing ($headers/postgres.h); install its server-dev package" >&2
        exit 2
    fi
    echo "$PG_CONFIG"
    exit
fi
for major in 18 17 16 15; do
    bin=/usr/lib/postgresql/$major/bin
    if [ -x "$bin/postgres" ] && [ -x "$bin/pg_config" ] && [ -f "$("$bin/pg_config" --includedir-server)/postgres.h" ]; then
        echo "$bin/pg_config"
        exit
    fi
done
exit 1
