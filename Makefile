# Partita: build, test and demonstrate. `make deps`, `make build`, `make test`, `make demo`; see README.md.
.DELETE_ON_ERROR:
.PHONY: all deps build lint unit mpi-check conformance guests oracle system fuzz test bench-programs bench-messages demo demo-programs demo-guests clean

ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
export CARGO_TARGET_DIR ?= $(ROOT)target
OUT := $(CARGO_TARGET_DIR)
MACHINE := $(ROOT)tests/machine/with-kvm

all: build

# Debian packages by name; nothing else is installed. Idempotent, and quiet when there is nothing to do.
deps:
	@$(ROOT)tests/deps.sh

# The four programs, the MPI library and its wrappers.
build: deps
	cargo build --locked --release -p vmm -p coordinator -p agent -p migrator
	$(MAKE) --no-print-directory -C guest-shim

lint: deps
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo run --locked -q -p xtask -- tidy
	cargo run --locked -q -p xtask -- licences
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet

# Everything that needs no KVM: it runs on this machine itself.
unit: deps build
	cargo test --locked --workspace --exclude partita-tests --no-fail-fast -- --quiet
	cargo test --locked -p partita-tests --lib --bins --no-fail-fast -- --quiet
	@if [ -d $(ROOT)../shared/data/lbaf ]; then cargo test --locked -p coordinator --test planner -- --quiet --ignored; \
	else echo "not run: the LBAF problems, which are in ../shared/data/lbaf of the builders' checkout"; fi

mpi-check: build
	$(ROOT)tests/mpich-abi.sh $(OUT)/mpich-abi
	$(MAKE) --no-print-directory -C guest-shim check
	$(MAKE) --no-print-directory -C guest-shim conformance-sample

# The whole MPICH test suite with our library: ranks as processes, which writes docs/conformance.md, and as partitions where KVM is.
IN_PARTITIONS := CONFORMANCE_OPTIONS="--runner partition --vmm $(OUT)/release/vmm"
conformance: build
	$(MAKE) --no-print-directory -C guest-shim conformance
	@[ ! -w /dev/kvm ] || $(MAKE) --no-print-directory -C guest-shim conformance-all $(IN_PARTITIONS)

guests: build
	$(MAKE) --no-print-directory -C tests/guest OUT=$(OUT)/programs
	$(MAKE) --no-print-directory -C tests/apps OUT=$(OUT)/apps WRAPPERS=$(ROOT)guest-shim/bin
	$(MAKE) --no-print-directory -C tests/bench OUT=$(OUT)/bench WRAPPERS=$(ROOT)guest-shim/bin

# What the same programs print under MPICH, natively.
oracle: guests
	tests/oracle/run.py --apps $(OUT)/apps/mpich --out $(OUT)/oracle

# Whole partitions, moves, kills, a cluster: where KVM is, or in the emulated machine. The suite's sample only where it is.
system: guests oracle
	tests/system.sh
	@[ ! -w /dev/kvm ] || $(MAKE) --no-print-directory -C guest-shim conformance-sample $(IN_PARTITIONS)

test: lint unit mpi-check system
	@echo "make test: everything passed"

# `make fuzz TARGET=fabric SECONDS=600`: a target of tests/fuzz, or all of them one after another. What it found stays in
# $(OUT)/fuzz/corpus; a crash is written beside it and ends with an error.
TARGET ?= elf fabric ring migration state control
SECONDS ?= 60
fuzz: deps
	tests/fuzz/run.sh $(OUT)/fuzz $(SECONDS) $(TARGET)

# Messages between partitions beside MPICH, in one run (docs/bench.md). Table here, every run and a picture in $(OUT)/bench.
# `make bench-messages MESSAGES="--turns 9"` gives options.
bench-messages: bench-programs
	$(OUT)/release/messages --json $(OUT)/bench/messages.json --svg $(OUT)/bench/messages.svg $(MESSAGES)

bench-programs: guests
	$(MAKE) --no-print-directory -C tests/apps OUT=$(OUT)/apps WRAPPERS=$(ROOT)guest-shim/bin $(OUT)/apps/native/heat
	cargo build --locked --release -p partita-tests --bin messages

# Builds only what it shows, hosts' programs and guests' side by side: neither keeps every processor busy all the time.
demo: deps
	$(MAKE) --no-print-directory -j2 demo-programs demo-guests
	tests/demo/demo.sh $(DEMO)

demo-programs:
	cargo build --locked --release -p vmm -p coordinator -p agent

demo-guests:
	$(MAKE) --no-print-directory -C guest-shim lib/libmpi.a
	$(MAKE) --no-print-directory -C tests/apps OUT=$(OUT)/apps WRAPPERS=$(ROOT)guest-shim/bin $(OUT)/apps/partita/heat $(OUT)/apps/mpich/heat

clean:
	cargo clean
	$(MAKE) --no-print-directory -C guest-shim clean
