#!/usr/bin/env bash
# The alerts in deploy/prometheus: that Prometheus understands them, that each has a case where it fires and one
# where it does not, that these pass, and that alerts, metrics and their documentation name the same things.
set -euo pipefail
cd "$(dirname "$0")/.."
rules=deploy/prometheus/alerts.yaml cases=deploy/prometheus/alerts_test.yaml
run() {
    local said
    said=$("$@" 2>&1) || { echo "$said" >&2 && exit 1; }
}
run promtool check config deploy/prometheus/prometheus.yaml
run promtool check config deploy/prometheus/compose.yaml
run promtool test rules $cases

found=0
fail() {
    echo "$*" >&2
    found=1
}
alerts=$(sed -n 's/^ *- alert: //p' $rules)
for alert in $alerts; do
    grep -q "alertname: $alert, .*exp_alerts: \[\]" $cases || fail "$cases: no case where $alert does not fire"
    grep -A 2 "alertname: $alert$" $cases | grep -q 'exp_alerts:$' || fail "$cases: no case where $alert fires"
    grep -q "^| \`$alert\` |" docs/operations.md || fail "docs/operations.md: $alert is not there"
done
mapfile -t documented < <(sed -n 's/^| .\(PgMask[A-Za-z]*\). |.*/\1/p' docs/operations.md)
for alert in "${documented[@]}"; do
    grep -qx "$alert" <<<"$alerts" || fail "$rules: $alert, of docs/operations.md, is not there"
done
# A histogram is documented without the endings of its parts.
mapfile -t metrics < <(grep -oE '\bpg_mask_forwarder_[a-z_]+' $rules | sort -u)
for metric in "${metrics[@]}"; do
    grep -qE "^\| \`(${metric}|${metric%_*})(\{[a-z]*\})?\`" docs/forwarder.md || fail "docs/forwarder.md: $metric is not there"
done
# The classes of errors that are the set-up are written down twice.
classes() { sed -n "s/$1/\\1/p" "$2" | tr -d '" ' | tr '|' ' '; }
of_forwarder=$(classes '^ *Some(\(".*"\)) => Kind::SetUp,$' forwarder/src/database/refusal.rs)
of_rules=$(classes '.*{class=~"\([^"]*\)"}.*' $rules)
[ -n "$of_rules" ] && [ "$of_rules" = "$of_forwarder" ] || fail "$rules: classes $of_rules are not those of the forwarder, $of_forwarder"
exit $found
