# shellcheck shell=bash
# Sourced by package_test.sh: starts the system in $system with systemd as its first process, in a container that has
# no network but its own loopback. The queue in it is rustack's.
# shellcheck disable=SC2034,SC2154 # variables that the two share
leader='' # the number of its first process, as this machine has it
nspawn=''

# What programs want to find where the system is not started.
mount_in_system() {
    mkdir -p "$system/dev/shm"
    mount -t proc proc "$system/proc"
    mount -t tmpfs tmpfs "$system/dev/shm"
}
unmount_in_system() {
    local point
    for point in dev/shm proc; do ! mountpoint -q "$system/$point" || umount "$system/$point"; done
}

# Starts what is in $system, and waits until its services are started.
start_system() {
    # What is mounted there it would take for its own.
    unmount_in_system
    # systemd 256 and later want the unified hierarchy, which a machine with the older ones has beside them.
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --boot --private-network --register=no --keep-unit --resolv-conf=off \
        --timezone=off --directory="$system" --console=pipe >"$work/console" 2>&1 </dev/null &
    nspawn=$!
    wait_until "systemd runs" has_leader
    wait_until "the services are started" has_started
}
has_leader() { leader=$(pgrep --parent "$nspawn") && inside test -S /run/systemd/private 2>/dev/null; }
has_started() {
    # Something else than what is tried here may have failed: degraded is a start, too.
    case $(inside systemctl is-system-running 2>/dev/null) in running | degraded) ;; *) return 1 ;; esac
}

# The order that a power button gives: services are stopped first.
stop_system() {
    inside systemctl poweroff >/dev/null 2>&1 || true
    wait_until "the system is down" is_down
    wait "$nspawn" || true
    leader='' nspawn=''
    mount_in_system
}
is_down() { ! kill -0 "$nspawn" 2>/dev/null; }
kill_system() {
    [ -n "$nspawn" ] || return 0
    # The first process takes all others with it; nspawn alone would leave them.
    pkill -KILL --parent "$nspawn" || true
    kill -KILL "$nspawn" 2>/dev/null || true
    wait "$nspawn" 2>/dev/null || true
    leader='' nspawn=''
}

# wait_until WHAT COMMAND...: a minute at most.
wait_until() {
    local what=$1 end=$((SECONDS + 60))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "waited in vain: $what"
        sleep 0.2
    done
}

# The queue "logins" at port 4566 of the system.
start_queue() {
    install "$servers_cache/rustack-0.12.0/bin/rustack" "$system/usr/local/bin/rustack"
    quietly inside systemd-run --unit=queue --setenv=GATEWAY_LISTEN=127.0.0.1:4566 /usr/local/bin/rustack
    wait_until "there is a queue" ask_queue CreateQueue '{"QueueName": "logins"}'
}
# ask_queue OPERATION JSON: whether the queue did it.
ask_queue() {
    # shellcheck disable=SC2016 # the inner shell's variables
    inside bash -c 'exec 3<>/dev/tcp/127.0.0.1/4566 &&
        printf "POST / HTTP/1.0\r\nContent-Type: application/x-amz-json-1.0\r\nX-Amz-Target: AmazonSQS.%s\r\nContent-Length: %d\r\n\r\n%s" \
            "$1" "${#2}" "$2" >&3 && grep -q "^HTTP/1.. 200" <&3' - "$1" "$2" 2>/dev/null
}
