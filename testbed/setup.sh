#!/usr/bin/env bash
# Makes everything ready for a target: installs what is missing, and builds. Safe to run again, and quick
# then. Needs Rust; and root, or sudo, only where a system package is missing.
#
#   setup.sh [build|forwarder|demo|test|bench|lint|package]
#
# build stops before anything is compiled, and so does forwarder, which needs no PostgreSQL; lint and package do, too,
# and have their tools.
set -euo pipefail
what=${1:-test}
cd "$(dirname "$0")/.."
# shellcheck source=testbed/steps.sh
. testbed/steps.sh
# shellcheck source=testbed/servers.sh
. testbed/servers.sh
say() { echo "setup: $*" >&2; }

testbed/rust.sh

# --- system packages -----------------------------------------------------------------------------
postgresql=$(testbed/find_postgresql.sh) || [ $? = 1 ] || exit 1
mapfile -t missing < <(testbed/packages.sh "$what")
sudo=()
if [ ${#missing[@]} != 0 ]; then
    if ! command -v apt-get >/dev/null; then
        say "please install what Debian calls: ${missing[*]}"
        exit 1
    fi
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -v; then
            say "please have these packages installed, by root: apt-get install ${missing[*]}"
            exit 1
        fi
        sudo=(sudo)
    fi
fi

install_packages() {
    "${sudo[@]}" apt-get update -qq
    # The names are known better with fresh lists.
    mapfile -t missing < <(testbed/packages.sh "$what")
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# --- which servers to build for: target/testbed/<major>/pg_config; pgrx wants to be told, too -----------
major_of() { "$1" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/'; }
note() {
    mkdir -p "target/testbed/$(major_of "$1")"
    echo "$1" >"target/testbed/$(major_of "$1")/pg_config"
}
note_servers() {
    local other major version config=target/pgrx/config.toml
    if [ "$what" = test ] || [ "$what" = package ]; then
        for major in "${!pinned[@]}"; do
            other=$(pg_config_of "$major")
            [ -e "$other" ] || continue
            note "$other"
            version=$("$other" --version | cut -d ' ' -f 2)
            # Debian's repository has no version but its newest.
            if [ "$version" != "${pinned[$major]}" ]; then say "PostgreSQL $version; testbed/servers.sh has ${pinned[$major]}"; fi
        done
    fi
    note "$postgresql" # last, so that of two with one major version it counts
    major_of "$postgresql" >target/testbed/major
    mkdir -p target/pgrx
    {
        echo '[configs]'
        for other in target/testbed/*/pg_config; do
            echo "pg$(major_of "$(cat "$other")") = \"$(cat "$other")\""
        done
    } >$config.new
    # Everything that pgrx builds hangs on this file's time.
    if cmp -s $config.new $config; then rm $config.new; else mv $config.new $config; fi
}

# --- the steps -------------------------------------------------------------------------------------
case $what in
build | forwarder) steps=0 ;;
lint) steps=1 ;;
package) steps=2 ;;
demo) steps=3 which=own ;;
bench) steps=3 which=bench ;;
test) steps=4 which=all ;;
*)
    say "setup.sh [build|forwarder|demo|test|bench|lint|package], not $what"
    exit 2
    ;;
esac
if [ ${#missing[@]} != 0 ]; then
    steps=$((steps + 1))
    step "installing system packages: ${missing[*]}" install_packages
    postgresql=$(testbed/find_postgresql.sh) || [ "$what" = forwarder ]
fi
case $what in
forwarder) ;;
build) note_servers ;;
lint)
    note_servers
    step "installing the tools for linting" testbed/tools.sh lint
    ;;
package)
    step "installing PostgreSQL 16, 17 and 18" testbed/tools.sh postgresql
    note_servers
    step "installing the tools for packages" testbed/tools.sh package
    ;;
*)
    if [ "$what" = test ]; then step "installing PostgreSQL 16, 17 and 18" testbed/tools.sh postgresql; fi
    note_servers
    meanwhile "installing the queue emulators" testbed/tools.sh "$what"
    step "compiling the forwarder and the testbed" testbed/build.sh "$which" programs
    step "compiling the extension" testbed/build.sh "$which" extension
    step_end
    ;;
esac
