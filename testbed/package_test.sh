#!/usr/bin/env bash
# The packages of target/packages, tried as an administrator would, in a fresh system for each release whose own
# PostgreSQL there is a package for: installed, used, upgraded under a running server, run as a service of systemd,
# removed, purged. Needs root.
#
#   package_test.sh [SUITE ...]     bookworm (PostgreSQL 15), noble (16; Ubuntu's), trixie (17), forky (18); bookworm
#                                   and trixie, unless given
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=testbed/servers.sh
. testbed/servers.sh
# shellcheck source=testbed/booted.sh
. testbed/booted.sh
packages=$PWD/target/packages
[ $# != 0 ] || set -- bookworm trixie
work=$(mktemp -d)
system=$work/system
step=

say() {
    step=$1
    printf '[%4d s] %s\n' "$SECONDS" "$step"
}
fail() {
    printf 'FAILED: %s: %s\n' "$step" "$1" >&2
    exit 1
}
equal() { [ "$2" = "$3" ] || fail "$1: expected '$3', found '$2'"; }
# Says nothing unless it fails.
quietly() {
    "$@" >"$work/output" 2>&1 </dev/null && return
    tail -n 40 "$work/output" >&2
    fail "$*"
}

clean_up() {
    local code=$?
    trap - EXIT INT TERM
    kill_system
    [ ! -e "$system/usr/bin/pg_ctlcluster" ] || inside pg_ctlcluster "$major" main stop --mode immediate >/dev/null 2>&1 || true
    unmount_in_system
    rm -rf --one-file-system "$work"
    exit $code
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- in the fresh system ---------------------------------------------------------------------------
inside() {
    local enter=(chroot "$system")
    # Once it is started, what it mounts and who runs in it are seen from its own namespaces alone.
    [ -z "$leader" ] || enter=(nsenter --target "$leader" --mount --uts --ipc --net --pid)
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive HOME=/root "${enter[@]}" "$@"
}
sql() { inside runuser -u postgres -- psql --no-psqlrc --tuples-only --no-align --quiet --set=ON_ERROR_STOP=1 --command="$1"; }
is_there() { inside test -e "$1"; }

make_system() {
    local mirror script='' keys=/usr/share/keyrings/debian-archive-keyring.gpg
    if [ "$1" = noble ]; then
        mirror=http://archive.ubuntu.com/ubuntu script=/usr/share/debootstrap/scripts/gutsy
        keys=/usr/share/keyrings/ubuntu-archive-keyring.gpg
        [ -e $keys ] || fail "$keys is not there; it is in Ubuntu's package ubuntu-keyring"
    else
        # Debian's own mirror, as the machine has it.
        # shellcheck disable=SC2016 # a field of apt's
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
        [ "$1" != forky ] || script=/usr/share/debootstrap/scripts/sid
    fi
    mkdir "$system"
    quietly debootstrap --variant=minbase --include=systemd-sysv --keyring=$keys "$1" "$system" "$mirror" $script
    mount_in_system
    printf '#!/bin/sh\nexit 101\n' >"$system/usr/sbin/policy-rc.d" # the test itself starts servers
    chmod 0755 "$system/usr/sbin/policy-rc.d"
    # The settings by which this machine reaches it.
    cp /etc/resolv.conf /etc/hosts "$system/etc/" 2>/dev/null || true
    apt-config dump --format '%f "%v";%n' Acquire >"$system/etc/apt/apt.conf.d/of-this-machine"
    echo force-unsafe-io >"$system/etc/dpkg/dpkg.cfg.d/of-a-test" # it outlasts no crash
    quietly inside apt-get update
}

# A session that is open while the package is upgraded.
open_session() {
    coproc SESSION { inside runuser -u postgres -- psql --no-psqlrc --tuples-only --no-align --quiet 2>&1; }
}
ask_session() {
    local answer
    echo "$1" >&"${SESSION[1]}"
    read -r -t 60 answer <&"${SESSION[0]}"
    echo "$answer"
}

# next_package PACKAGE COMMAND...: the package once more, with the next number, as next.deb; COMMAND changes its tree.
next_package() {
    local tree=$work/next
    rm -rf "$tree"
    dpkg-deb --raw-extract "$1" "$tree"
    sed -i 's/^Version: .*/&.1/' "$tree/DEBIAN/control"
    "${@:2}" "$tree"
    (cd "$tree" && find usr -type f -exec md5sum '{}' + >DEBIAN/md5sums)
    quietly dpkg-deb --root-owner-group -Zgzip -z1 --build "$tree" "$system/next.deb"
}
# A next version's scripts beside.
with_next_scripts() {
    local tree=$1
    printf '\\echo Use "ALTER EXTENSION pg_mask UPDATE" to load this file. \\quit\nCOMMENT ON SCHEMA pgmask IS '"'of the next version'"';\n' \
        >"$tree/usr/share/postgresql/$major/extension/pg_mask--$version--next.sql"
    sed -i "s/^default_version = .*/default_version = 'next'/" "$tree/usr/share/postgresql/$major/extension/pg_mask.control"
}

# --- the forwarder as a service ----------------------------------------------------------------------
settings_of_logins() {
    printf '%s\n' QUEUE_NAME=logins AWS_REGION=us-east-1 AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_ACCESS_KEY_ID=test \
        AWS_SECRET_ACCESS_KEY=test PGHOST=127.0.0.1 PGDATABASE=postgres PGUSER=pgmask_forwarder
}
login() { printf '{"QueueUrl": "http://127.0.0.1:4566/000000000000/logins", "MessageBody": "{\\"user_id\\": %s}"}' "$1"; }
is_there_once() { [ "$(sql "SELECT count(*) FROM user_logins WHERE user_id = '$1'")" = 1 ]; }
instance() { inside systemctl show --property="$1" --value pg-mask-forwarder@logins; }
has_failed() { [ "$(instance ActiveState)" = failed ]; }

# --- what can be said without installing -----------------------------------------------------------
say "lintian finds no error, and warns of nothing"
quietly lintian --fail-on error,warning "$packages"/*.deb
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)

say "files belong to root and can be written by nobody else"
for package in "$packages"/*.deb; do
    equal "$(basename "$package")" "$(dpkg-deb --contents "$package" | awk '$2 != "root/root" || $1 ~ /^.....w|^........w/')" ""
done

say "the unit of the package is as hardened as it has to be"
dpkg-deb --extract "$packages"/pg-mask-forwarder_*.deb "$work/forwarder"
quietly testbed/systemd.sh "$work/forwarder/usr/lib/systemd/system/pg-mask-forwarder@.service"

for suite; do
    case $suite in bookworm) major=15 ;; noble) major=16 ;; trixie) major=17 ;; forky) major=18 ;; *) fail "no package is for the PostgreSQL of $suite" ;; esac
    name=postgresql-$major-pg-mask
    package=$(echo "$packages/$name"_*.deb)
    say "$suite: a fresh system"
    make_system "$suite"
    cp "$package" "$packages"/pg-mask-forwarder_*.deb "$system/"

    say "$suite: $name is installed, with the server"
    quietly inside apt-get install --yes --no-install-recommends "/$(basename "$package")"
    quietly inside dpkg --verify "$name"
    quietly inside pg_ctlcluster $major main start
    sql "SET client_min_messages = warning; CREATE EXTENSION pg_mask"
    for file in "$system/usr/share/postgresql/$major/pg_mask"/*.sql; do
        quietly inside runuser -u postgres -- psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --file="${file#"$system"}"
    done
    equal "logins" "$(sql "SELECT inserted FROM pgmask.ingest_login_batch('{a}', ARRAY['{\"user_id\": 1, \"ip\": \"203.0.113.7\"}'], ARRAY[now()], '{1}')")" 1
    token=$(sql "SELECT mask_pii('203.0.113.7')")
    equal "logins of the address" "$(sql "SELECT count(*) FROM user_logins WHERE masked_ip = '$token'")" 1
    equal "errors of the server" "$(inside grep -c -E 'FATAL|PANIC' "/var/log/postgresql/postgresql-$major-main.log")" 0

    say "$suite: the package is upgraded under the running server"
    open_session
    equal "a session of before" "$(ask_session "SELECT mask_pii('203.0.113.7');")" "$token"
    next_package "$package" with_next_scripts
    quietly inside apt-get install --yes --no-install-recommends /next.deb
    equal "a session of before, afterwards" "$(ask_session "SELECT mask_pii('203.0.113.7');")" "$token"
    equal "a new session" "$(sql "SELECT mask_pii('203.0.113.7')")" "$token"
    equal "the version, before it is asked for" "$(sql "SELECT extversion FROM pg_extension WHERE extname = 'pg_mask'")" "$version"
    sql "ALTER EXTENSION pg_mask UPDATE"
    equal "the version" "$(sql "SELECT extversion FROM pg_extension WHERE extname = 'pg_mask'")" next
    equal "what the upgrade script did" "$(sql "SELECT obj_description('pgmask'::regnamespace, 'pg_namespace')")" "of the next version"
    equal "the session of before, after the upgrade" "$(ask_session "SELECT mask_pii('203.0.113.7');")" "$token"
    ask_session "\\q" >/dev/null || true

    say "$suite: the forwarder is installed"
    quietly inside apt-get install --yes --no-install-recommends "/$(basename "$packages"/pg-mask-forwarder_*.deb)"
    quietly inside dpkg --verify pg-mask-forwarder
    equal "its version" "$(inside forwarder --version)" "forwarder $version"
    equal "the folder for settings" "$(inside stat --format '%a %U %G' /etc/pg-mask-forwarder)" "750 root root"
    quietly inside bash -n /usr/share/bash-completion/completions/forwarder
    gzip -dc "$system/usr/share/man/man1/forwarder.1.gz" | grep -q '^\.TH forwarder 1' || fail "the manual page is none"
    # It finds the database of this server; there is no queue.
    sql "ALTER ROLE pgmask_forwarder PASSWORD 'of a test'"
    inside env AWS_ENDPOINT_URL=http://127.0.0.1:9 AWS_REGION=r AWS_ACCESS_KEY_ID=k AWS_SECRET_ACCESS_KEY=s QUEUE_NAME=q \
        PGHOST=127.0.0.1 PGDATABASE=postgres PGUSER=pgmask_forwarder PGPASSWORD='of a test' \
        forwarder check >"$work/check" 2>&1 || true
    grep -q '^✓ table' "$work/check" || fail "forwarder check: $(cat "$work/check")"
    grep -q '^! extension .*ALTER EXTENSION\|^! extension .*made for' "$work/check" || fail "it does not say that the extension is of another version: $(cat "$work/check")"

    say "$suite: an instance of the forwarder is a service of systemd, and reads its password as a credential"
    quietly inside pg_ctlcluster $major main stop
    (umask 077 && echo 'of a test' >"$system/etc/pg-mask-forwarder/logins.password")
    settings_of_logins >"$system/etc/pg-mask-forwarder/logins.env"
    start_system
    quietly inside systemctl start postgresql@$major-main
    start_queue
    ask_queue SendMessage "$(login 2)" || fail "the queue took no message"
    quietly inside systemctl enable --now pg-mask-forwarder@logins
    wait_until "its login is there" is_there_once 2
    first=$(instance MainPID)
    user=$(inside stat --format %u "/proc/$first")
    [ "$user" -ge 61184 ] || fail "it runs as the user $user of the machine, and not as one of its own"
    ! inside runuser -u postgres -- cat /run/credentials/pg-mask-forwarder@logins.service/password >"$work/said" 2>&1 || fail "another user can read the password"
    grep -q 'Permission denied' "$work/said" || fail "the password is not where it has to be: $(cat "$work/said")"
    equal "what the journal says of errors" "$(inside journalctl --quiet --unit=pg-mask-forwarder@logins | grep -cE '"level":"(ERROR|WARN)"' || true)" 0

    say "$suite: it goes on with the program of an upgraded package, after a kill, and after a start of the machine"
    next_package "$packages"/pg-mask-forwarder_*.deb true
    quietly inside dpkg --install /next.deb
    equal "its state" "$(instance ActiveState)" active
    second=$(instance MainPID)
    [ "$first" != "$second" ] || fail "it runs with the old program"
    ask_queue SendMessage "$(login 3)"
    wait_until "the next login is there" is_there_once 3
    quietly inside systemctl kill --signal=KILL pg-mask-forwarder@logins
    ask_queue SendMessage "$(login 4)"
    wait_until "the login after the kill is there" is_there_once 4
    stop_system
    start_system
    start_queue
    ask_queue SendMessage "$(login 5)"
    wait_until "the login after the start is there" is_there_once 5
    echo 'FORWARDER_WRITERS=none' >>"$system/etc/pg-mask-forwarder/logins.env"
    quietly inside systemctl restart pg-mask-forwarder@logins
    wait_until "a variable that is wrong ends it" has_failed
    equal "how it ended" "$(instance ExecMainStatus)" 2

    say "$suite: what is removed is gone, and the data stays"
    sed -i '$d' "$system/etc/pg-mask-forwarder/logins.env"
    quietly inside systemctl restart pg-mask-forwarder@logins
    quietly inside dpkg --remove pg-mask-forwarder
    equal "its state" "$(instance ActiveState)" inactive
    stop_system
    quietly inside pg_ctlcluster $major main start
    is_there /etc/pg-mask-forwarder/logins.password || fail "removing took a password away"
    quietly inside dpkg --purge pg-mask-forwarder
    ! is_there /etc/pg-mask-forwarder || fail "a purge left settings behind"
    quietly inside apt-get remove --yes "$name"
    equal "logins" "$(sql "SELECT count(*) FROM user_logins")" 5
    sql "SELECT mask_pii('203.0.113.7')" >"$work/said" 2>&1 && fail "the library is still there"
    grep -q 'could not access file "pg_mask"' "$work/said" || fail "$(cat "$work/said")"
    quietly inside dpkg --purge "$name"
    rm "$system"/*.deb
    equal "what is left" "$(cd "$system" && find . -xdev -name '*pg?mask*' -not -path './var/lib/dpkg/*' -not -path './var/cache/*')" \
        "./var/lib/postgresql/$major/main/pg_mask.keyring"

    say "$suite: installed again, it goes on"
    cp "$package" "$system/"
    quietly dpkg-deb --info "$system/$(basename "$package")"
    sql "UPDATE pg_extension SET extversion = '$version' WHERE extname = 'pg_mask'"
    quietly inside apt-get install --yes --no-install-recommends "/$(basename "$package")"
    equal "the token" "$(sql "SELECT mask_pii('203.0.113.7')")" "$token"
    quietly inside pg_ctlcluster $major main stop
    unmount_in_system
    rm -rf --one-file-system "$system"
done
say "all is well"
