# The front door. Every target does its own set-up and may be run again.
PG_CONFIG ?=
export PG_CONFIG

.PHONY: setup demo test install lint
setup:
	@testbed/setup.sh

demo:
	@testbed/setup.sh demo && testbed/build.sh
	@target/debug/testbed demo $(if $(KEEP),--keep)

test:
	@testbed/setup.sh test && testbed/build.sh
	cargo test --workspace --exclude pg_mask

install:
	@testbed/install.sh

lint:
	cargo fmt --all --check
	PGRX_HOME=$(CURDIR)/target/pgrx cargo clippy --workspace --all-targets -- -D warnings
