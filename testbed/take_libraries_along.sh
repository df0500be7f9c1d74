#!/bin/sh
# Has the programs of a PostgreSQL run with the C library that lies beside them, which is newer than the machine's.
#
#   take_libraries_along.sh SERVER PLACE     SERVER has libraries/, patchelf and usr/lib/postgresql; it will be at PLACE
set -eu
server=$1 place=$2
loader=$(cd "$server/libraries" && echo ld-linux-*.so.*)
for program in "$server"/usr/lib/postgresql/*/bin/*; do
    [ "$(head -c 4 "$program" | tail -c 3)" = ELF ] || continue
    # The older kind of RPATH: it counts for libraries of libraries, too.
    "$server/patchelf" --set-interpreter "$place/libraries/$loader" --force-rpath --set-rpath "$place/libraries" "$program"
done
