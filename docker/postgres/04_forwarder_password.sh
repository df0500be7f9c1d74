#!/usr/bin/env bash
# Runs once, after the database was made: gives mask_forwarder the password that FORWARDER_PASSWORD_FILE
# holds. Without that variable the role has none, and can't log in over the network.
set -euo pipefail
[ -n "${FORWARDER_PASSWORD_FILE:-}" ] || exit 0
if [ ! -s "$FORWARDER_PASSWORD_FILE" ]; then
    echo "error: FORWARDER_PASSWORD_FILE: $FORWARDER_PASSWORD_FILE is missing or empty; mask_forwarder needs a password. Provide it, remove the data volume, which is not complete, and start again." >&2
    exit 1
fi
# The statement holds the password, so it is never logged.
export PGOPTIONS='-c log_statement=none -c log_min_duration_statement=-1 -c log_min_error_statement=panic'
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'END'
\set password `cat "$FORWARDER_PASSWORD_FILE"`
ALTER ROLE mask_forwarder PASSWORD :'password';
END
