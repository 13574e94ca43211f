# The commands of this repository; each is a script in scripts/. `make help` lists them.
# Settings: KEEP=1 (demo), TEST=… FILTER=… (test-flow), MINUTES=… SEED=… RATE=… (soak), PG_CONFIG=… DESTDIR=… (install).

PG_CONFIG ?= pg_config
export KEEP TEST FILTER DESTDIR MINUTES SEED RATE MESSAGES PROFILE

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: prepare ## Watch messages go from COMMIT to a provider and back; KEEP=1 leaves it running
	@scripts/build.sh --plain 18
	@cargo build --locked -p sms-outbox-tests --bin demo
	@scripts/run.sh cargo run --quiet --locked -p sms-outbox-tests --bin demo

.PHONY: test
test: setup ## Build everything and run all tests, as CI does
	@scripts/test.sh build lint security unit flow demo left

.PHONY: test-build
test-build: prepare ## Build the command and the extension for private servers 15 to 18
	@scripts/build.sh

.PHONY: test-unit
test-unit: test-build ## Run the unit tests alone
	@scripts/test.sh unit

.PHONY: test-flow
test-flow: test-build ## Run the black-box tests; TEST=flow picks a file, FILTER=pg18 tests by name
	@scripts/test.sh flow left

.PHONY: model
model: ## Explore the protocol's model within wider bounds, and catch its broken twins
	@cargo test --quiet --locked -p sms-outbox --lib --config 'profile.dev.package.sms-outbox.opt-level=3' \
	    -- --include-ignored outbox::memory::model

.PHONY: test-security
test-security: setup test-build ## Run the security gate alone: pgspot, cargo-deny, Schemathesis, attacks
	@scripts/test.sh security attacks left

.PHONY: faults
faults: test-build ## Run every test that injects a fault, within an hour, and print one table of them
	@scripts/faults.sh

.PHONY: soak
soak: test-build ## Load and random faults for MINUTES=60, drawn from SEED=7; writes a summary into docs/soak
	@scripts/soak.sh

.PHONY: pressure
pressure: test-build ## Run the long tests of load: ten minutes of ten times too much, and ten million rows
	@scripts/run.sh cargo test --locked -p sms-outbox-tests --test pressure_load -- --ignored --nocapture --test-threads 1

.PHONY: bench
bench: setup ## Measure ours beside other queues and bare SQL, for hours; ARGS="--peers none --rounds 2 --backlog 100000" for less
	@scripts/peers.sh
	@scripts/bench.sh suite run $(ARGS)

.PHONY: bench-quick
bench-quick: setup ## Measure ours alone for a few minutes, and compare with the committed figures
	@scripts/bench.sh suite quick $(ARGS)

.PHONY: bad-night
bad-night: test-build ## Drain MESSAGES=10000000 under a pinned horizon without vacuum; writes a summary into docs/bad-night
	@scripts/bad-night.sh

.PHONY: bench-api
bench-api: setup ## Measure the HTTP API against calling SQL; ARGS="--callers 16 --requests 0" for less
	@scripts/bench.sh api $(ARGS)

.PHONY: bench-limits
bench-limits: setup ## Measure what limits cost an enqueue; ARGS="--callers 1 --rounds 3" for less
	@scripts/bench.sh limits $(ARGS)

.PHONY: check-peers
check-peers: prepare ## Install the peers of the benchmark, and check what each of their commands does
	@scripts/check-peers.sh

.PHONY: lint
lint: prepare ## Check formatting, lints and the rules of the architecture
	@scripts/lint.sh

.PHONY: build
build: ## Build the command sms-outbox for use (target/release/sms-outbox)
	@scripts/release.sh command

.PHONY: install
install: ## Build the extension and put it into the PostgreSQL of PG_CONFIG=/path/to/pg_config
	@scripts/release.sh extension "$(PG_CONFIG)"

.PHONY: setup
setup: prepare ## Install what is missing: system packages, crates, private PostgreSQL servers, tools of the security gate
	@scripts/tools.sh

# All of it but those tools, which only the security gate needs.
.PHONY: prepare
prepare:
	@scripts/setup.sh
	@scripts/servers.sh
	@scripts/sweep.sh

.PHONY: stop
stop: ## End what make demo KEEP=1 left running
	@scripts/sweep.sh all

.PHONY: clean
clean: ## Remove the builds and the private servers of this checkout
	@scripts/clean.sh
