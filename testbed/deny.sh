#!/bin/sh
# cargo-deny: whether dependencies' licences and sources are what .deny.toml allows, or what else is asked for.
#
#   deny.sh [CHECK ...]     licenses bans sources; advisories needs the network
set -eu
cd "$(dirname "$0")/.."
testbed/tools.sh deny
cache=${PG_MASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pg_mask}
[ $# != 0 ] || set -- licenses bans sources
exec "$cache/cargo-deny-0.20.2/bin/cargo-deny" --log-level warn check "$@"
