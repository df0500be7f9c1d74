#!/bin/sh
# Keeps one server and its folder: starts and stops it when told to on standard input, and takes both
# away when standard input ends, which it does however its owner ends.
#
#   guardian.sh FOLDER LAST_SIGNAL COMMAND [ARGUMENT ...]
#
# Orders, one a line: "start" answers the process id; "stop SIGNAL" sends the signal, waits, and
# answers the exit status. What the server prints goes to FOLDER/log.
folder=$1 last_signal=$2 server=
shift 2

while read -r order signal; do
    case $order in
    start)
        "$@" >>"$folder/log" 2>&1 </dev/null &
        server=$!
        echo "$server"
        ;;
    stop)
        kill -s "$signal" "$server" 2>/dev/null
        wait "$server"
        echo $?
        server=
        ;;
    esac
done

if [ -n "$server" ]; then
    kill -s "$last_signal" "$server" 2>/dev/null
    # A server that does not listen is not waited for.
    (
        patience=100
        while [ $patience -gt 0 ] && kill -0 "$server" 2>/dev/null; do
            sleep 0.1
            patience=$((patience - 1))
        done
        kill -s KILL "$server" 2>/dev/null
    ) &
    # The shell would tell of a server that was killed.
    wait "$server" 2>/dev/null
    kill $! 2>/dev/null
fi
rm -rf "$folder"
