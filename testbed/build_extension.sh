#!/bin/sh
# Builds the extension's library for one PostgreSQL that setup.sh found, into
# target/testbed/<major>/<profile>/pg_mask.so. Its control file and SQL need no building: they are in pg_mask/.
#
#   build_extension.sh MAJOR [PROFILE]     dev, unless release is asked for
set -eu
major=$1 profile=${2:-dev}
root=$(cd "$(dirname "$0")/.." && pwd)
testbed=$root/target/testbed
case $profile in dev) folder=debug ;; *) folder=$profile ;; esac

PGRX_PG_CONFIG_PATH=$(cat "$testbed/$major/pg_config")
PGRX_HOME=$root/target/pgrx
export PGRX_PG_CONFIG_PATH PGRX_HOME
cd "$root"
echo "building pg_mask with the headers of $("$PGRX_PG_CONFIG_PATH" --version)" >&2
cargo build --profile "$profile" -p pg_mask --no-default-features --features "pg$major"
mkdir -p "$testbed/$major/$folder"
# Under another name first: servers may run with the file that is there.
cp "target/$folder/libpg_mask.so" "$testbed/$major/$folder/pg_mask.so.new"
mv "$testbed/$major/$folder/pg_mask.so.new" "$testbed/$major/$folder/pg_mask.so"
