# Everything happens in .venv, which needs only Python 3.11 to 3.13 with its venv module: no compiler, no GPU library.
# `make` alone lists the commands.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo "$$name" && break; done)
# Test processes side by side. Measuring tests share one lock, so more than the cores brings nothing.
WORKERS ?= 2
FUZZ_CASES ?= 2000
SBOM ?= dist/sbom.json
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --no-deps --require-hashes
INSTALL_SELF := $(PIP) install --no-deps --no-build-isolation --editable '.[server]'

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-slow test-installations test-fuzz lint format audit sbom screenshots lock clean

help: ## Show the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## Tune the shipped example end to end and show the result (under 4 minutes)
	@$(BIN)/tessera demo

serve: $(VENV)/installed ## Start the service: REST API, dashboard and engine
	@$(BIN)/tessera serve

test: $(VENV)/installed-dev ## Run the tests (PYTEST_ARGS="-k name" chooses some)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not installation and not slow and not fuzz" $(PYTEST_ARGS)

test-slow: $(VENV)/installed-dev ## Whole jobs, emulated boards and browsers: what takes more than half a minute each
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "slow and not installation and not fuzz" $(PYTEST_ARGS)

test-installations: $(VENV)/installed-dev ## Clusters, containers' services, and everything killed at 20 moments of real jobs
	@$(BIN)/python -m pytest -m installation $(PYTEST_ARGS) # one after another: a machine has room for one Ray cluster

test-fuzz: $(VENV)/installed-dev ## Hostile files: 2000 against the gate, the compiler and the interface (FUZZ_CASES=50000 for more)
	@TESSERA_TEST_FUZZ_CASES=$(FUZZ_CASES) $(BIN)/python -m pytest -n $(WORKERS) -m fuzz tests/fuzz $(PYTEST_ARGS)

lint: $(VENV)/installed-dev ## Check style, types, layers and dependencies
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "Run: make format"; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry .

format: $(VENV)/installed-dev ## Format the code and apply safe fixes
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

audit: $(VENV)/installed-dev ## Look for known vulnerabilities of what is pinned; says where nothing can be asked
	@$(BIN)/python .ci/audit.py requirements.lock

sbom: $(VENV)/installed-dev ## List what an installation consists of, as CycloneDX (SBOM=dist/sbom.json)
	@mkdir -p $(dir $(SBOM))
	@$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-format JSON --output-file $(SBOM)
	@echo "$(SBOM)"

screenshots: $(VENV)/installed-dev ## Photograph every page into docs/images, after small real jobs (needs Chromium)
	@$(BIN)/python -m tests.acceptance.screenshots

# Pins and hashes come from PyPI alone: local indexes and folders of wheels must not leak into the files.
LOCK := env -u PIP_FIND_LINKS $(BIN)/uv pip compile --quiet pyproject.toml --extra server --extra postgresql --extra s3 --extra ray \
	--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock"

lock: $(BIN)/python ## Write the lock files again (LOCK_ARGS=--upgrade for the newest versions)
	@$(PIP) install uv
	@$(LOCK) $(LOCK_ARGS) --group build --output-file requirements.lock
	@$(LOCK) $(LOCK_ARGS) --group build --group dev --constraints requirements.lock --output-file requirements-dev.lock

clean: ## Remove the virtual environment and every cache
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Tessera needs Python 3.11, 3.12 or 3.13 (python3 --version to see yours)." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing. On Debian: apt install python3-venv" >&2; exit 1; }

$(VENV)/installed: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing Tessera into $(VENV) (1.5 GB, once)"
	@$(INSTALL) --requirement requirements.lock
	@$(INSTALL_SELF)
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock $(VENV)/installed
	@echo "Installing what the tests need"
	@$(INSTALL) --requirement requirements-dev.lock
	@touch $@
