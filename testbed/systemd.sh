#!/bin/sh
# The unit in deploy/systemd, or the file that is named: whether systemd understands every line of it, and how much
# of the machine it leaves to a forwarder that was taken over, from 0 (nothing) to 10.
set -eu
cd "$(dirname "$0")/.."
unit=${1:-deploy/systemd/pg-mask-forwarder@.service}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# What it starts need not be installed here.
sed 's|^ExecStart=.*|ExecStart=/bin/true|' "$unit" >"$folder/pg-mask-forwarder@.service"
remarks=$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$folder/pg-mask-forwarder@.service" 2>&1) || true
# Remarks on the machine's own units are none of ours.
if remarks=$(echo "$remarks" | grep pg-mask-forwarder); then
    echo "$remarks" >&2
    exit 1
fi
if ! found=$(systemd-analyze security --offline=yes --threshold=15 "$folder/pg-mask-forwarder@.service"); then
    echo "$found" >&2
    exit 1
fi
