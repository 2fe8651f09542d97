PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check fmt lint types bench load model soak docs clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(READY): requirements/all.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/all.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(READY) ## make the virtual environment and install the pinned packages

demo: $(READY) ## the main job on embedded servers: 50,000 users split, verified, summed up
	@$(BIN)/python -m ops.demo

test: $(READY) ## run all tests, two at a time, each half on servers of its own
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

check: lint types ## formatting, lint and types: what CI runs before the tests

fmt: $(READY) ## format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## the chunk path against its peers and its limit, in one run
	$(BIN)/python -m ops.bench

load: $(READY) ## what an application feels of a migration: alone, beside it flat out, beside it paced
	$(BIN)/python -m ops.load

model: $(READY) ## the model checker of the protocol of live writes, with its larger bounds
	$(BIN)/python -m tests.model

soak: $(READY) ## live writes under kill -9, elections and a wiped Redis, then compared: ARGS='--seeds 1-30'
	$(BIN)/python -m ops.soak $(ARGS)

docs: $(READY) ## write the documents that are derived from the code
	$(BIN)/python -m ops.docs

clean: ## remove what set-up and runs left behind
	rm -rf $(VENV) .mongosplit build dist
