# The front door. Every target does its own set-up and may be run again.
PG_CONFIG ?=
PREFIX ?= /usr/local
export PG_CONFIG PREFIX DESTDIR

.PHONY: demo test lint bench compose-test setup install install-forwarder install-script package package-test release-check

# The whole way once; KEEP=1 keeps the servers up, with psql as the analyst.
demo:
	@testbed/setup.sh demo
	@target/debug/testbed demo $(if $(KEEP),--keep)

# Every test, with real servers.
test:
	@testbed/setup.sh test
	@testbed/test.sh

lint:
	@testbed/setup.sh lint
	@testbed/lint.sh

# BENCH=mask|ingest|e2e|receivers|start|remask|scale|views|instructions for a part; COMPARE=1 to fail if it became slower than last time.
bench:
	@testbed/setup.sh bench
	@target/release/testbed bench $(BENCH) $(if $(COMPARE),--compare)

# docker-compose.yaml, tried for real. Needs a Docker engine.
compose-test:
	@testbed/compose_test.sh

# What is needed to work on the code with cargo alone.
setup:
	@testbed/setup.sh build

# The extension, into the server of PG_CONFIG.
install:
	@testbed/install.sh extension

# The forwarder, into $(PREFIX)/bin.
install-forwarder:
	@testbed/install.sh forwarder

# Writes pg_mask/sql/pg_mask--<version>.sql anew, after a change of the extension's SQL objects.
install-script:
	@testbed/setup.sh build
	@testbed/install_script.sh write

# Debian packages of the extension and the forwarder, into target/packages.
package:
	@testbed/setup.sh package
	@testbed/package.sh

# Installs, uses, upgrades, removes and purges them in fresh Debians. Needs root.
package-test:
	@testbed/setup.sh package
	@testbed/package_test.sh

# What docs/release.md wants of a version before it gets its tag.
release-check:
	@testbed/release_check.sh
