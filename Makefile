# Everything runs from .venv, which `make setup` makes once. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip --disable-pip-version-check
BENCH  := .venv-bench

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format types docs bench clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## make .venv with everything that tests, docs and lint need

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "diabolo needs Python 3.11 or newer; $(PYTHON) is older. Name another: make PYTHON=python3.12 setup"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing diabolo and its tools into $(VENV)"
	@$(PIP) install -q -e '.[dev]'
	@touch $@

demo: setup ## fit real data that travels with the package and write a report for each set
	@$(BIN)/diabolo demo

test: setup ## all tests, doctests included
	@$(BIN)/python -m pytest -n auto --dist loadfile

test-all: setup ## and what CI asks of one member instead of its like: twice as long
	@DIABOLO_THOROUGH=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: setup ## rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup ## put the sources in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: setup ## static types
	@$(BIN)/mypy

docs: setup ## build the pages into site/; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(BENCH)/.installed ## speed against PyTorch and the machine's peak, in an environment of its own
	@$(BENCH)/bin/python benchmarks/speed.py

$(BENCH)/.installed: pyproject.toml
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@echo "installing PyTorch (the comparison's dependency, never the package's) into $(BENCH)"
	@$(BENCH)/bin/python -m pip --disable-pip-version-check install -q torch==2.13.0
	@$(BENCH)/bin/python -m pip --disable-pip-version-check install -q -e .
	@touch $@

clean: ## remove what was built, environments included
	rm -rf $(VENV) $(BENCH) site build dist .pytest_cache .mypy_cache .ruff_cache
