# The front door: make run, make test, make bench, make lint, make fuzz, make clean.
# Everything happens in .venv; a fresh Debian needs python3, python3-venv, python3-dev and gcc.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
FUZZ_INPUTS ?= 1000000
BENCH_ARGS  ?=

.PHONY: run test test-all crash bench lint format fuzz sanitize build clean preflight
.DEFAULT_GOAL := help

help:
	@echo "make run    build and start a development server on 127.0.0.1:2525, in the foreground"
	@echo "make test   the default test suite"
	@echo "make crash  kills, power cuts, failing calls, damaged files, a full disk: does the spool keep its promise?"
	@echo "make bench  micro benchmarks, then the server under load (BENCH_ARGS='--against postfix' to compare)"
	@echo "make lint   ruff, mypy --strict, import-linter"
	@echo "make fuzz   coverage-guided, every parser and both sessions against their references (FUZZ_INPUTS=$(FUZZ_INPUTS) each)"
	@echo "make sanitize  the extensions under AddressSanitizer and UndefinedBehaviorSanitizer, and the tests that reach them"
	@echo "make clean  remove what was built; ./var, where the development server keeps mail, stays"

preflight:
	@$(PYTHON) tools/preflight.py

$(VENV)/.installed: pyproject.toml setup.py | preflight
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet "setuptools>=77" "cython>=3.1"
	@$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[test,bench,dev]"
	@touch $@

build: $(VENV)/.installed
	@$(BIN)/python setup.py --quiet build_ext --inplace

run: build
	@$(BIN)/python tools/devserver.py

test: build
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

test-all: build
	$(BIN)/python -m pytest

crash: build
	$(BIN)/python -m pytest tests/crash -m "" --figures build/crash.md

bench: build
	$(BIN)/python -m pytest bench --benchmark-enable --benchmark-columns=min,median,max,rounds
	$(BIN)/python -m bench all $(BENCH_ARGS)

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict -p mta
	$(BIN)/lint-imports

format: build
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: build
	$(BIN)/python -m tests.fuzz.driver --inputs $(FUZZ_INPUTS)

sanitize: build
	tools/sanitize.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache
	find mta -name '*.so' -delete -o -name '*.c' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
