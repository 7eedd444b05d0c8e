# The two commands: `make run` starts a whole site on this machine, `make test` runs all tests.
.PHONY: run test check build

build:
	cargo build --workspace --bins

run: build
	deploy/local/install run
	cargo run --quiet --package local -- run

test: build
	deploy/local/install test
	cargo test --workspace --no-fail-fast

# What a change must pass before it lands, beside the tests.
check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
