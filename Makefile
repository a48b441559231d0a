# SPDX-License-Identifier: GPL-3.0-or-later
# What a developer or a packager does with this tree. `make help` lists it.

SHELL = /bin/sh
.DEFAULT_GOAL = help
.PHONY: help build run test test-corpus bench bench-bombs fuzz check install

PREFIX ?= /usr
SYSCONFDIR ?= /etc
DESTDIR ?=
# Flags for the sandbox and the bench: make run ARGS="--once --smtp-port 2626"
ARGS ?=
# make bench PEERS=1: postgrey, sqlgrey, postfwd and policyd-rate-limit in the same table
PEERS ?=

CARGO := $(shell command -v cargo 2>/dev/null || { [ -x "$$HOME/.cargo/bin/cargo" ] && echo "$$HOME/.cargo/bin/cargo"; })
TARGET := $(or $(CARGO_TARGET_DIR),target)
NEED_CARGO = @[ -n "$(CARGO)" ] && '$(CARGO)' --version >/dev/null 2>&1 || { echo 'octroi: no working cargo; install Rust $(RUST) or newer, see https://rustup.rs' >&2; exit 69; }
RUST := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

# gcc and libc6-dev: two of the crates are C.
BUILD_PACKAGES = gcc libc6-dev
RUN_PACKAGES = $(BUILD_PACKAGES) postfix clamav-daemon
BENCH_PACKAGES = $(BUILD_PACKAGES) postgresql clamav-daemon $(if $(PEERS),$(PEER_PACKAGES))
TEST_PACKAGES = $(RUN_PACKAGES) postfix-pcre postgresql swaks postgrey sqlgrey db-util libdbd-sqlite3-perl slapd ldap-utils openssl spamc qpdf c-icap libc-icap-mod-virus-scan
PEER_PACKAGES = postgrey sqlgrey libdbd-pg-perl libdbd-sqlite3-perl postfwd policyd-rate-limit
CORPUS_PACKAGES = $(BUILD_PACKAGES) clamav-daemon zstd spamc

help:                   ## this list
	@sed -n 's/^\([a-z-]*\): .*## /  make \1	/p' Makefile | expand -t 24

build:                  ## the three programs, optimised, in target/release
	$(NEED_CARGO)
	@tests/packages.sh $(BUILD_PACKAGES)
	$(CARGO) build --locked --release -p policyd -p contentd -p octroi

run:                    ## the whole gate in a private sandbox; Ctrl-C ends it (ARGS="--once", "--smtp-port 2626", ...)
	$(NEED_CARGO)
	@tests/packages.sh $(RUN_PACKAGES)
	@echo 'Building (the first time takes some minutes) ...'
	@$(CARGO) build --locked --quiet -p policyd -p contentd -p tests --bins
	@exec $(TARGET)/debug/sandbox $(ARGS)

test:                   ## all that needs no data from elsewhere: unit, store, fault, end-to-end (MOMENTS=200 kills, LOAD=10000 messages)
	$(NEED_CARGO)
	@tests/packages.sh $(TEST_PACKAGES)
	$(CARGO) build --locked --workspace
	@tests/clean.sh $(CARGO) test --locked --workspace --no-fail-fast

test-corpus:            ## what needs real mail: make test-corpus CORPUS=DIR
	$(NEED_CARGO)
	@[ -n "$(CORPUS)" ] && [ -d "$(CORPUS)" ] || { echo 'octroi: say where the corpus is: make test-corpus CORPUS=DIR' >&2; exit 64; }
	@tests/packages.sh $(CORPUS_PACKAGES)
	$(CARGO) build --locked -p contentd
	@CORPUS="$(abspath $(CORPUS))" tests/clean.sh $(CARGO) test --locked -p tests --features corpus --test corpus

bench:                  ## requests and messages a second, beside do-nothing daemons (PEERS=1: beside those of others too)
	$(NEED_CARGO)
	@tests/packages.sh $(BENCH_PACKAGES)
	$(CARGO) build --locked --release -p policyd -p contentd -p tests --bins
	@exec $(TARGET)/release/bench $(if $(PEERS),--peers) $(ARGS)

bench-bombs:            ## what bombs cost contentd: zip and other archives, documents, messages (ARGS="--only pdf")
	$(NEED_CARGO)
	@tests/packages.sh $(BUILD_PACKAGES)
	$(CARGO) build --locked --release -p contentd -p tests --bins
	@exec $(TARGET)/release/bench-bombs $(ARGS)

fuzz:                   ## parsers with random input, each for FUZZ_SECONDS=600 (FUZZ="mime unpack:zip": only these)
	$(NEED_CARGO)
	@tests/packages.sh $(BUILD_PACKAGES) g++
	@FUZZ_SECONDS='$(FUZZ_SECONDS)' FUZZ='$(FUZZ)' CORPUS='$(abspath $(CORPUS))' tests/fuzz/run.sh

check:                  ## format, clippy and documentation, warnings are errors
	$(NEED_CARGO)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps

install: build          ## programs, configuration, units and documents below DESTDIR (PREFIX=/usr)
	install -D -m 755 -t '$(DESTDIR)$(PREFIX)/sbin' $(TARGET)/release/policyd $(TARGET)/release/contentd
	install -D -m 755 -t '$(DESTDIR)$(PREFIX)/bin' $(TARGET)/release/octroi
	install -D -m 644 -t '$(DESTDIR)$(PREFIX)/lib/systemd/system' $(wildcard deploy/systemd/*)
	install -D -m 644 -t '$(DESTDIR)$(PREFIX)/lib/sysusers.d' deploy/sysusers.d/octroi.conf
	[ -e '$(DESTDIR)$(SYSCONFDIR)/octroi/octroi.toml' ] || install -D -m 644 -t '$(DESTDIR)$(SYSCONFDIR)/octroi' deploy/octroi.toml
	install -D -m 644 -t '$(DESTDIR)$(PREFIX)/share/doc/octroi' deploy/octroi.toml $(wildcard README.md CHANGELOG.md LICENSE docs/*.md)
	install -D -m 644 -t '$(DESTDIR)$(PREFIX)/share/doc/octroi/migrating' $(wildcard docs/migrating/*.md)
	install -D -m 644 -t '$(DESTDIR)$(PREFIX)/share/doc/octroi/postfix' deploy/postfix/main.cf deploy/postfix/master.cf
