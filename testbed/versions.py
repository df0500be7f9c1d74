#!/usr/bin/env python3
"""META.json, and that the version is the same wherever it is written down.

META.json has what the PGXN meta spec 1.0.0 (https://pgxn.org/spec/) requires, and names files that are there.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# "SemVer" in the spec: https://semver.org, version 2.0.0.
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
LICENSES = {"agpl_3", "apache_1_1", "apache_2_0", "artistic_1", "artistic_2", "bsd", "freebsd", "gfdl_1_2",
    "gfdl_1_3", "gpl_1", "gpl_2", "gpl_3", "lgpl_2_1", "lgpl_3_0", "mit", "mozilla_1_0", "mozilla_1_1", "openssl",
    "perl_5", "postgresql", "qpl_1_0", "ssleay", "sun", "zlib", "open_source", "restricted", "unrestricted",
    "unknown"}
found = []


def expect(good, what):
    """Notes what is not as it has to be."""
    if not good:
        found.append(what)


def is_text(value):
    """Whether it is a text with something in it."""
    return isinstance(value, str) and value.strip() != ""


def is_texts(value):
    """Whether it is such a text, or a list of at least one."""
    return is_text(value) or (isinstance(value, list) and value != [] and all(map(is_text, value)))


def check_meta(meta):
    """The fields that the spec requires, and what it says of their values."""
    for field in ("abstract", "name"):
        expect(is_text(meta.get(field)), f"META.json: {field} is not a text")
    expect(is_text(meta.get("name")) and not re.search(r"[\s/\\]", meta["name"]), "META.json: name has spaces or slashes")
    expect(is_texts(meta.get("maintainer")), "META.json: maintainer is neither a text nor a list of them")
    licenses = meta.get("license")
    licenses = [licenses] if isinstance(licenses, str) else licenses
    known = isinstance(licenses, list) and licenses != [] and LICENSES.issuperset(licenses)
    expect(known, "META.json: license is not made of the spec's names")
    spec = meta.get("meta-spec")
    expect(isinstance(spec, dict) and spec.get("version") == "1.0.0", "META.json: meta-spec is not of version 1.0.0")
    provides = meta.get("provides")
    expect(isinstance(provides, dict) and provides != {}, "META.json: provides nothing")
    for name, extension in (provides or {}).items():
        for field in ("file", "docfile"):
            file = extension.get(field)
            there = is_text(file) and (ROOT / file).is_file()
            expect(there or (field == "docfile" and file is None), f"META.json: {name}'s {field} is not there: {file}")
        expect(SEMVER.fullmatch(extension.get("version", "")), f"META.json: {name}'s version is not a semantic version")


def first(file, pattern):
    """What a pattern finds in a file, or None."""
    match = re.search(pattern, (ROOT / file).read_text(), re.MULTILINE)
    return match and match[1]


def check_versions(meta):
    """One version everywhere."""
    wanted = first("Cargo.toml", r'^\[workspace\.package\]\nversion = "(.*)"$')
    expect(wanted is not None and SEMVER.fullmatch(wanted), f"Cargo.toml: {wanted} is not a semantic version")
    # Above released versions stands the one that is next, in "What … will hold."
    places = {
        "CHANGELOG.md": first("CHANGELOG.md", r"^(?:## \[|What )(\d[^\] ]*)(?:\]| will hold\.)"),
        "META.json": meta.get("version"),
        "META.json, provides": meta.get("provides", {}).get("pg_mask", {}).get("version"),
        "pg_mask/pg_mask.control": first("pg_mask/pg_mask.control", r"^default_version = '(.*)'$"),
        "deploy/kubernetes/example/kustomization.yaml": first("deploy/kubernetes/example/kustomization.yaml", r"newTag: ([^}\s]*)"),
    }
    for manifest in sorted(ROOT.glob("pg_mask/**/Cargo.toml")) + sorted(ROOT.glob("forwarder/**/Cargo.toml")):
        own = first(manifest.relative_to(ROOT), r'^version = "(.*)"$')
        if own is not None and "fuzz" not in manifest.parts:
            places[str(manifest.relative_to(ROOT))] = own
    for place, version in places.items():
        expect(version == wanted, f"{place}: the version is {version}, and Cargo.toml has {wanted}")
    script = f"pg_mask/sql/pg_mask--{wanted}.sql"
    expect((ROOT / script).is_file(), f"{script} is not there")


meta = json.loads((ROOT / "META.json").read_text())
check_meta(meta)
check_versions(meta)
print("\n".join(found), end="\n" if found else "", file=sys.stderr)
sys.exit(bool(found))
