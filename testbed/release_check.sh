#!/usr/bin/env bash
# What can be found out before a version gets its tag; docs/release.md says when to run it. Changes nothing but target/.
#
#   release_check.sh [quick]     quick leaves out what builds: the tests of upgrades, and the packages
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
found=0
wrong() {
    echo "release-check: $*" >&2
    found=1
}

echo "release-check: $version"
[ -z "$(git status --porcelain)" ] || wrong "the work tree has changes that are not committed"
testbed/versions.py || wrong "versions differ"
grep -qE "^## \[$version\] - 20[0-9]{2}-[0-9]{2}-[0-9]{2}$" CHANGELOG.md || wrong "CHANGELOG.md has no section [$version] with a day"
! git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null || wrong "there is a tag v$version already"

# What was released is never edited: databases have been made with it.
mapfile -t released < <(git tag --list 'v*')
for tag in "${released[@]}"; do
    mapfile -t scripts < <(git ls-tree --name-only "$tag" pg_mask/sql/)
    for script in "${scripts[@]}"; do
        git diff --quiet "$tag" -- "$script" || wrong "$script was released with $tag, and has been changed or removed since"
    done
done
# From each released version there is a way to this one.
newest=$(git tag --list 'v*' --sort=-version:refname | head -n 1)
if [ -n "$newest" ] && [ "$newest" != "v$version" ]; then
    [ -e "pg_mask/sql/pg_mask--${newest#v}--$version.sql" ] || wrong "pg_mask/sql/pg_mask--${newest#v}--$version.sql is not there"
fi
for script in pg_mask/sql/*.sql; do
    grep -q '^\\echo Use "\(CREATE\|ALTER\) EXTENSION pg_mask.* \\quit$' "$script" || wrong "$script can be run by psql: its first statement has to be the \\echo … \\quit"
done
[ $found = 0 ] || exit 1
[ "${1:-}" != quick ] || exit 0

testbed/setup.sh test
for major in 15 16 17 18; do
    [ -e "target/testbed/$major/pg_config" ] || continue
    PG_MASK_TEST_PG=$major cargo test --workspace --exclude pg_mask --test promises -- extension::upgrade extension::pg_upgrade extension::install_script
done
make package package-test
echo "release-check: $version is good"
