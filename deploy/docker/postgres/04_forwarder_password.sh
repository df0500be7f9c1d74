#!/usr/bin/env bash
# Runs after the database was made, and whenever you like: gives pgmask_forwarder the password that
# FORWARDER_PASSWORD_FILE holds. Without that variable the role has none, and can't log in over the network.
set -euo pipefail
[ -n "${FORWARDER_PASSWORD_FILE:-}" ] || exit 0
if [ ! -s "$FORWARDER_PASSWORD_FILE" ]; then
    echo "error: FORWARDER_PASSWORD_FILE: $FORWARDER_PASSWORD_FILE is missing or empty; pgmask_forwarder needs a password. Provide it and start again, without what this start left in the data directory." >&2
    exit 1
fi
# The statement holds the password, so it is never logged.
export PGOPTIONS='-c log_statement=none -c log_min_duration_statement=-1 -c log_min_duration_sample=-1 -c log_transaction_sample_rate=0 -c log_min_error_statement=panic -c pg_stat_statements.track_utility=off'
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:=postgres}" --dbname="${POSTGRES_DB:-$POSTGRES_USER}" <<'END'
\set password `cat "$FORWARDER_PASSWORD_FILE"`
ALTER ROLE pgmask_forwarder PASSWORD :'password';
END
