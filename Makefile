# Every verb sets up what it needs. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export LC_ALL := C.UTF-8
export PYTHONUTF8 := 1
unexport PYTHONPATH PYTHONHOME

BIN := .venv/bin
MOLECULE := $(BIN)/molecule
OPENAPI := docs/openapi/management.yaml
PYTEST := $(BIN)/python -m pytest
# Extra words for the command that a verb runs: make test-fast ARGS='-k cron'
ARGS ?=
# Where the tests are: make test-fast T=tests/server/orgs
T ?= tests
# Runtimes with a library of their own, each with an extra in pyproject.toml and a file in locks/.
RUNTIMES := autogen claude-code crewai deepagents google-adk openai-agents
# One of them for make test-adapters; empty: all.
ADAPTER ?=
# Non-empty: the demo leaves after its summary instead of serving on.
ONCE ?=

##@ Use it

.PHONY: setup
setup: ## Create .venv with the locked dependencies and the molecule command
	@scripts/setup

.PHONY: demo
demo: setup ## Bring an organization to life in the terminal (ONCE=1 leaves after the summary)
	@$(MOLECULE) demo $(if $(filter-out 0,$(ONCE)),--once) $(ARGS)

.PHONY: up
up: setup ## Start server, embedded PostgreSQL and agents on this machine
	@$(MOLECULE) up $(ARGS)

##@ Work on it

.PHONY: test
test: check test-parallel test-processes test-serial test-postgres-15 ## Everything CI runs: lint, types, generated files, tests

.PHONY: test-fast
test-fast: setup ## The quick tests only (T=path ARGS='-k name')
	@$(PYTEST) -q -n 2 --dist loadgroup -m "not slow and not serial and not processes and not containers" $(ARGS) $(T)

.PHONY: test-adapters
test-adapters: $(addprefix test-adapter-,$(or $(ADAPTER),$(RUNTIMES))) ## Runtimes against their real libraries (ADAPTER=crewai for one)

.PHONY: chaos
chaos: setup ## Kill servers, workers, databases and agents 200 times beside 50 agents (half an hour; CHAOS_SEED=7)
	@CHAOS_ROUNDS=$${CHAOS_ROUNDS:-200} CHAOS_AGENTS=$${CHAOS_AGENTS:-50} CHAOS_REPORT=$${CHAOS_REPORT:-chaos.json} \
		$(PYTEST) -q tests/chaos/test_kills.py $(ARGS)
	@cat $${CHAOS_REPORT:-chaos.json}

.PHONY: test-docker
test-docker: setup ## Everything that runs containers, on a Podman of its own (root, podman, runc)
	@$(PYTEST) -q -m containers $(ARGS) $(T)

.PHONY: check
check: lint types drift ## Lint, types and generated files, without the tests

.PHONY: lint
lint: setup ## Style, formatting and the direction of imports
	@$(BIN)/ruff check $(PYTHON_TREES)
	@$(BIN)/ruff format --check $(PYTHON_TREES)
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache

.PHONY: fix
fix: setup ## Repair what ruff can repair
	@$(BIN)/ruff check --fix $(PYTHON_TREES)
	@$(BIN)/ruff format $(PYTHON_TREES)

.PHONY: types
types: setup ## mypy, strict
	@$(BIN)/mypy

.PHONY: drift
drift: setup ## Fail when a generated file differs from what the code generates
	@scripts/openapi --check

.PHONY: openapi
openapi: setup ## Regenerate docs/openapi from the types
	@scripts/openapi

.PHONY: bench
bench: setup ## Run the load scenarios (ARGS='--help' lists them)
	@$(BIN)/python -m bench $(ARGS)

.PHONY: db
db: setup ## Show the migrations and which of them are applied
	@$(MOLECULE) db status $(ARGS)

.PHONY: lock
lock: setup ## Resolve the dependencies anew and write the lock files (ARGS=crewai for one runtime)
	@scripts/lock $(ARGS)

.PHONY: clean
clean: ## Remove the virtual environment and every cache
	@rm -rf .venv .venv-adapters .setup.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## List the verbs
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Not verbs for people: the parts of `make test`.

PYTHON_TREES := $(wildcard src tests bench)

.PHONY: test-parallel
test-parallel: setup
	@$(PYTEST) -q -n 3 --dist loadgroup -m "not serial and not processes and not exhaustive" $(ARGS) $(T)

# Tests that start servers and agents wait for leases, sweeps and minutes; so three of them share two cores.
.PHONY: test-processes
test-processes: setup
	@$(PYTEST) -q -n 3 --dist worksteal -m "processes and not serial" $(ARGS) $(T) || [ $$? -eq 5 ]

# Tests that measure, or kill at random against deadlines, need the machine for themselves.
.PHONY: test-serial
test-serial: setup
	@$(PYTEST) -q -m serial $(ARGS) $(T) || [ $$? -eq 5 ]

# Each library lives in an environment of its own, because they do not agree on versions.
.PHONY: $(addprefix test-adapter-,$(RUNTIMES))
$(addprefix test-adapter-,$(RUNTIMES)): test-adapter-%: setup
	@scripts/adapter-env $*
	@MOLECULE_TEST_ADAPTER=$* .venv-adapters/$*/bin/python -m pytest -q -p no:cacheprovider $(ARGS) tests/adapters

# For the pre-commit hook.
.PHONY: house
house: setup
	@$(PYTEST) -q tests/test_house.py
	@scripts/openapi --check

# What stands on SQL must hold on the oldest version that we support, too.
.PHONY: test-postgres-15
test-postgres-15: setup
	@scripts/with-postgres-15 $(PYTEST) -q -n 3 --dist loadgroup -m "database and not serial and not processes and not containers and not slow" tests
