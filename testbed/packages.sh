#!/usr/bin/env bash
# What Debian calls the packages that are missing, one a line; nothing if all are there.
#
#   packages.sh [build|forwarder|demo|test|bench|lint|package]
set -euo pipefail
what=${1:-test}
cd "$(dirname "$0")"
have() { command -v "$1" >/dev/null; }
has_libclang() { compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || compgen -G '/usr/lib/*/libclang*.so*' >/dev/null; }

if ! have cc || ! have make; then echo build-essential; fi
if [ "$what" = forwarder ]; then exit; fi
have clang || echo clang
has_libclang || echo libclang-dev
have pkg-config || echo pkg-config
if [ "$what" != build ] && ! python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo python3-venv
fi
if [ "$what" = lint ] && ! have systemd-analyze; then echo systemd; fi
case $what in lint | test) have promtool || echo prometheus ;; esac
if [ "$what" = package ]; then
    have dpkg-shlibdeps || echo dpkg-dev
    have lintian || echo lintian
    PATH=$PATH:/usr/sbin have debootstrap || echo debootstrap
    have systemd-analyze || echo systemd
    have systemd-nspawn || echo systemd-container
fi
if [ "$what" = test ] && ! PATH=$PATH:/usr/sbin have pgbouncer; then echo pgbouncer; fi
if ! ./find_postgresql.sh >/dev/null; then
    # Debian's own newest, by its number where the package lists are there.
    major=$(apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1)
    echo "postgresql${major:+-$major}"
    echo "postgresql-server-dev-${major:-all}"
fi
