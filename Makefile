# Every target sets up what it needs from nothing but Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.synced
# Two files at a time; the nights, which take longest, begin a round of their own.
APART := $(addprefix tests/,anomaly attribution bi cli compliance control dashboards destinations experiments \
	messaging models partners privacy rag sandbox security sources usage warehouse webhooks)

.DEFAULT_GOAL := help
.PHONY: help setup nightly test test-fast check portal bench clean

help:  ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## make the virtual environment from the lock

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "No venv module: install it first (Debian: apt-get install python3-venv)"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

$(STAMP): $(BIN)/uv uv.lock pyproject.toml
	@$(BIN)/uv sync --frozen --quiet --inexact
	@touch $@

nightly: $(STAMP)  ## run the whole night on the demo company
	@$(BIN)/omni nightly

test: $(STAMP)  ## run every test
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(APART)
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests/flows tests $(addprefix --ignore=,$(APART))

test-fast: $(STAMP)  ## run the tests that start no server, process or browser
	@$(BIN)/python -m pytest -n 2 -m 'not slow'

check: $(STAMP)  ## lint, types, import contract, dead code, declarations, deployments
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/vulture
	@$(BIN)/omni check
	@$(BIN)/python -m deployments.check

portal: $(STAMP)  ## show the published dashboards at http://127.0.0.1:8080
	@$(BIN)/omni portal

bench: $(STAMP)  ## measure the orchestration's overhead, loading against dlt, models against dbt and SQLMesh
	@$(BIN)/uv sync --frozen --quiet --inexact --group bench
	@$(BIN)/python -m benchmarks.orchestration
	@$(BIN)/python -m benchmarks.ingestion
	@$(BIN)/python -m benchmarks.models

clean:  ## remove the virtual environment and all state
	rm -rf .venv data/var
