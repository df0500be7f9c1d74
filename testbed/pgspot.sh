#!/usr/bin/env bash
# pgspot on all SQL that a superuser runs: the extension's scripts and sql/. Any remark fails.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${PG_MASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pg_mask}
found=0
# check FILE [ARGUMENT ...]; a line of psql's own is no SQL.
check() {
    local file=$1 remarks
    shift
    remarks=$(sed 's/^\\echo .*//' "$file" | "$cache/lint-tools-3/bin/python" -m pgspot "$@" 2>&1 || true)
    if ! grep -q 'Errors: 0 Warnings: 0 Unknown: 0' <<<"$remarks"; then
        printf '%s\n%s\n' "$file:" "$remarks" >&2
        found=1
    fi
}

# A procedure that commits can have no settings of its own: every name in it is qualified instead.
committing=(
    'pgmask.remask(relation regclass,columns text[],domain text,batch_blocks bigint,INOUT lifted bigint,INOUT left_alone bigint)'
    'pgmask.unseal_quarantine(id bigint,reason text,INOUT body text)'
    'pgmask.recover_pii(token text,reason text,INOUT value text)'
    'pgmask.forget(token text,reason text)'
)
for file in pg_mask/sql/*.sql; do check "$file" "${committing[@]/#/--proc-without-search-path=}"; done
for file in sql/*.sql; do
    case $file in
    # A login table that is there already is welcome. The file itself refuses one, or a view, that another role owns.
    sql/01_*) check "$file" --ignore PS012 --ignore PS015 ;;
    # The file itself refuses a schema or a view that another role owns.
    sql/03_*) check "$file" --ignore PS015 --ignore PS010 ;;
    sql/04_*) check "$file" --ignore PS015 ;;
    # The file itself refuses a table, a view or a function that another role owns.
    sql/05_*) check "$file" --ignore PS002 --ignore PS012 --ignore PS015 ;;
    *) check "$file" ;;
    esac
done
exit $found
