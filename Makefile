# What people type. Everything that is needed is made first, from a Python 3.11 to 3.13 and the package index alone: uv, at
# the version below, in an environment of its own, and the project's locked dependencies in .venv. `make help` lists it all.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

UV_VERSION := 0.13.9
TOOLS := .cache/tools
UV := $(TOOLS)/bin/uv
BIN := .venv/bin
INSTALLED := .venv/.installed
COMPOSE := docker compose
COMPILED := $(shell find reconciler streams -name '*.pxd' | sed 'p; s/pxd$$/py/')
UNCOMPILED := without a C compiler the hot path stays Python, and folds about a tenth slower (Debian: apt-get install gcc python3-dev)

# The first interpreter of a version that we support which really runs: a version manager's shim may be there and refuse.
# Choose another one with `make PYTHON=/path/to/python …`.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	path=$$(command -v $$name) || continue; \
	"$$path" -c 'import sys, ensurepip, venv; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		>/dev/null 2>&1 && { echo "$$path"; break; }; done)

# We choose the interpreter; uv must never download one.
export UV_PYTHON_DOWNLOADS := never
# An environment that happens to be active is not the one meant here.
unexport VIRTUAL_ENV

# Arguments for pytest, such as `make test TESTS="tests/core -k undo"`.
TESTS ?=
# How many processes run the tests, a file of them at a time; each starts servers of its own. 0 is this one alone.
# Files are taken in the order of their names: by their number of tests, the few long ones would all come last and at once.
JOBS ?= 2
# What people write contracts and scenarios in.
CONTRACTS := deploy/contracts examples/contracts

# Arguments for the benchmarks, such as `make bench BENCH=--help`.
BENCH ?=

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) ## Make .venv with the locked dependencies

$(UV):
	@test -n "$(PYTHON)" || { echo "make: no working Python 3.11, 3.12 or 3.13 with venv was found on the PATH;" \
		"install one (Debian: apt-get install python3 python3-venv) or say which: make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"

# A .venv that is there keeps its interpreter. Modules that have a .pxd are compiled if that can be done (deploy/hatch_build.py):
# a compiled module is found before its source, so it is made anew when that changes.
$(INSTALLED): $(UV) pyproject.toml uv.lock deploy/hatch_build.py $(COMPILED)
	@test -x $(BIN)/python || $(UV) venv --quiet --allow-existing --python "$(PYTHON)" .venv
	$(UV) sync --quiet --locked --reinstall-package reconciler --python $(BIN)/python
	@$(BIN)/python -c 'from reconciler.wire import action_reader as reader; print(end="make: $(UNCOMPILED)\n" * \
		reader.__file__.endswith(".py"))' >&2
	@touch $@

.PHONY: demo
demo: $(INSTALLED) ## Watch drift put right and a run undone over two systems, with nothing but Python
	@$(BIN)/reconciler demo

.PHONY: test
test: $(INSTALLED) ## Run every test; those that need a server which isn't installed say so and are skipped
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

.PHONY: lint
lint: $(INSTALLED) ## Check style, types, the rooms of the house, the schemas and the deployment files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/reconciler schemas check
	for folder in $(CONTRACTS); do $(BIN)/reconciler contracts lint $$folder; done
	for folder in $(CONTRACTS); do $(BIN)/reconciler contracts test $$folder; done
	$(UV) tool run --quiet --python $(BIN)/python --from check-jsonschema==0.39.0 check-jsonschema \
		--builtin-schema vendor.compose-spec docker-compose.yml

.PHONY: bench
bench: $(INSTALLED) ## Measure speed; a broker's part needs Java and Maven
	@$(BIN)/python -m benchmarks $(BENCH)

.PHONY: up
up: ## Start the whole system in Docker: Kafka, registry, Redis, PostgreSQL, Kafka UI, worker, served target
	@test -f deploy/.env || { sh deploy/make-env >deploy/.env.new && mv deploy/.env.new deploy/.env; }
	$(COMPOSE) --env-file deploy/.env up --detach --build --wait

.PHONY: down
down: ## Stop it; its data stays in Docker's volumes
	$(COMPOSE) --env-file deploy/.env down

.PHONY: clean
clean: ## Take away what was made here, except for the caches of downloads
	find reconciler streams -name '*.so' -delete
	rm -rf .venv $(TOOLS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .data dist
