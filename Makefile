# The front door. Every target does its own set-up and may be run again.
PG_CONFIG ?=
export PG_CONFIG

.PHONY: setup demo test compose-test bench lint install install-script
setup:
	@testbed/setup.sh

demo:
	@testbed/setup.sh demo && testbed/build.sh
	@target/debug/testbed demo $(if $(KEEP),--keep)

test:
	@testbed/setup.sh test && testbed/build.sh all
	testbed/test.sh

# docker-compose.yaml, tried for real. Needs a Docker engine.
compose-test:
	@testbed/compose_test.sh

# BENCH=mask|ingest|e2e|scale for a part
bench:
	@testbed/setup.sh bench && testbed/build.sh bench
	@target/release/testbed bench $(BENCH)

lint:
	@testbed/setup.sh build
	testbed/lint.sh

# Writes pg_mask/sql/pg_mask--<version>.sql anew, after a change of the extension's SQL objects.
install-script:
	@testbed/setup.sh build
	@testbed/install_script.sh write

install:
	@testbed/install.sh
