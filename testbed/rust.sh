#!/bin/sh
# Ends with 1, and says what to install, where there is no Rust.
set -eu
cd "$(dirname "$0")/.."
! command -v cargo >/dev/null || exit 0
echo "cargo is missing: pg_mask is built with Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer. https://rustup.rs says how to install it." >&2
if [ -n "${SUDO_USER:-}" ]; then
    echo "If $SUDO_USER has it: run make as $SUDO_USER, without sudo, which make calls itself where it has to." >&2
fi
exit 1
