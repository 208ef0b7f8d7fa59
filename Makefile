# Two commands do everything on a fresh Debian or Ubuntu machine with a Rust toolchain:
#
#   make run    builds, serves a registry with TLS on port 5050 and prints how to log in
#   make test   builds, installs the real clients and runs every test

SHELL := /bin/sh
# One profile for everything: what the tests run is what ships, and CI compiles once.
PROFILE := --release
BINARY  := target/release/pierhead
DENY    := 0.20
# What is built for tests of its own alone need not be fast. To optimise all of it at link time would take longer than the tests.
UNOPTIMISED := --config 'profile.release.package.pierhead.opt-level=0'

# The tests make network and mount namespaces: whoever is not root runs them, and nothing else, with sudo.
ifneq ($(shell id -u),0)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := sudo -E
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER := sudo -E
endif

.PHONY: help run build test check bench soak fuzz tools clients deny

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

run: build ## serve a working registry with TLS on port 5050 (data in data/, certificates in certs/)
	PIERHEAD_TLS_LOCAL=$${PIERHEAD_TLS_LOCAL:-certs} exec $(BINARY) serve

build: tools ## compile the binary
	cargo build $(PROFILE) --locked

test: tools clients ## every test, with docker, podman, buildah, skopeo and docker-registry
	cargo test $(PROFILE) --locked $(UNOPTIMISED) --features opentelemetry --lib --test it traces::
	cargo test $(PROFILE) --locked $(UNOPTIMISED) --lib
	cargo test $(PROFILE) --locked --bins --test '*'

check: tools deny ## formatting, lints, licences and sources of what we link, links in the documentation
	cargo fmt --check
	cargo clippy $(PROFILE) --locked --all-targets -- -D warnings
	cargo clippy $(PROFILE) --locked --features opentelemetry -- -D warnings
	cargo deny check licenses bans sources
	@if cargo deny fetch db >/dev/null 2>&1; then cargo deny check advisories; \
	else echo 'advisories: their database cannot be reached from here, not checked'; fi
	RUSTDOCFLAGS='-D warnings' cargo doc $(PROFILE) --locked --no-deps --document-private-items

# Short: make bench BENCH='--rounds=1 --scale=0.05' LISTING=--count=20000 MICRO=--sample-count=5
# Listings are last because they fail when a page takes too long, as one may on a machine that does something else.
bench: build ## nginx + docker-registry and others beside us, as ratios (BENCH=--rounds=1 for a short run); single steps; listings page by page
	@tests/install-clients bench
	benches/side-by-side --output target/bench $(BENCH) $(BINARY)
	cargo bench --locked --bench micro -- $(MICRO)
	benches/listing $(LISTING) $(BINARY)

soak: tools clients fuzz ## the long forms: every crash point, hours where the tests take seconds
	PIERHEAD_SOAK=1 cargo test $(PROFILE) --locked $(UNOPTIMISED) --lib
	PIERHEAD_SOAK=1 cargo test $(PROFILE) --locked --bins --test '*'

# Not optimised at link time: only our own crates are to count what they reach.
fuzz: tools ## ten million random requests for the parsers, guided by what they reach (FUZZ_RUNS=... for another number)
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/fuzz/coverage CARGO_PROFILE_RELEASE_LTO=off cargo build $(PROFILE) --locked -p pierhead-fuzz
	mkdir -p target/fuzz && cd target/fuzz && mkdir -p found && ../release/pierhead-fuzz -runs=$${FUZZ_RUNS:-10000000} -max_len=16384 -print_final_stats=1 found ../../fuzz/corpus

# What the build itself needs: cmake (zlib-ng, through Pingora), make and a C compiler (aws-lc, SQLite, jemalloc).
tools:
	@tests/install-clients build

clients:
	@tests/install-clients test

deny:
	@cargo deny --version 2>/dev/null | grep -q 'cargo-deny $(DENY)' || cargo install cargo-deny --version '~$(DENY)' --locked
