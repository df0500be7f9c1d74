#!/usr/bin/env bash
# Runs last, once: the database is complete. See start_postgres.sh.
set -euo pipefail
rm -f "${PGDATA%/*}/first-start-not-done"
sync "${PGDATA%/*}"
