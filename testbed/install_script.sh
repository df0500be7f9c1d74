#!/bin/sh
# The extension's install script, pg_mask/sql/pg_mask--<version>.sql, is generated from pg_mask/src and
# committed. Needs no tool but cargo.
#
#   install_script.sh write     after a change of a function's declaration or of pg_mask/src/sql/
#   install_script.sh check     fails if the committed script is not what would be written
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
major=$(cat target/testbed/major)
testbed/build_extension.sh "$major"
cargo run --quiet -p install_script -- "${1:-write}" "target/testbed/$major/debug/pg_mask.so"
