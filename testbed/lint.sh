#!/usr/bin/env bash
# Formatting, lints, documentation, what was generated, SQL, shell scripts and licences; any finding fails.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${PG_MASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pg_mask}
major=$(cat target/testbed/major)
PGRX_PG_CONFIG_PATH=$(cat "target/testbed/$major/pg_config")
export PGRX_PG_CONFIG_PATH PGRX_HOME=$PWD/target/pgrx

lint() { echo "lint: $*"; }

lint formatting
cargo fmt --all --check
lint versions
testbed/versions.py
lint shell scripts
mapfile -t scripts < <(git ls-files '*.sh' .ci/run '*.postinst' '*.prerm' '*.postrm')
"$cache/lint-tools-3/bin/shellcheck" "${scripts[@]}"
lint the systemd unit
testbed/systemd.sh
lint Kubernetes manifests
"$cache/lint-tools-3/bin/python" "$cache/lint-tools-3/bin/kubernetes-validate" --quiet --no-warn --strict --kubernetes-version 1.30 \
    deploy/kubernetes/base/[!k]*.yaml deploy/kubernetes/drain/[!k]*.yaml
"$cache/lint-tools-3/bin/python" testbed/manifests.py
lint alerts
testbed/alerts.sh
lint SQL, for what an attacker could make of it
testbed/pgspot.sh
lint licences and sources of dependencies
testbed/deny.sh
lint clippy
cargo clippy --workspace --exclude pg_mask --all-targets -- -D warnings
cargo clippy -p pg_mask --no-default-features --features "pg$major" -- -D warnings
lint documentation
RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --no-deps --document-private-items --workspace --exclude pg_mask --quiet
lint the install script
testbed/install_script.sh check
