# The two commands: `make run` starts a whole site on this machine, `make test` runs all tests.
.PHONY: run test check build figures figures-full

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

# Every figure that a benchmark states, built for release: rows as they come, all of them in target/figures.json, and the table at
# the end. Over after half an hour, whatever is missing then. ONLY=name,name for some.
figures:
	cargo build --release --package listserv --package mx-edge --package mailload
	-timeout 1800 cargo bench --package mailload --benches --no-fail-fast
	target/release/mailload figures

# The same at the sizes of the outage; takes long, and some ten gigabytes of disk.
figures-full:
	cargo build --release --package listserv --package mx-edge --package mailload
	-cargo bench --package mailload --benches --no-fail-fast -- --full
	target/release/mailload figures
