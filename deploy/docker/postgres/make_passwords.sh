#!/usr/bin/env bash
# Makes a random password for each purpose that has none, in volumes that only those containers see
# that need them. Passwords that are there stay: to choose your own, write it there.
set -euo pipefail
umask 022 # whoever has the volume may read it: containers run as different users
for file in /run/passwords/{superuser,forwarder}/password; do
    [ ! -s "$file" ] || continue
    head --bytes=24 /dev/urandom | base64 | tr '+/' '-_' >"$file.new"
    mv "$file.new" "$file"
    echo "made a random password: $file"
done
