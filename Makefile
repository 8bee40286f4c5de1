PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test test-all lint bench docs
.DEFAULT_GOAL := help

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.done ## build .venv with what tests and tools need (a few minutes)

$(VENV)/.done: setup.cfg pyproject.toml src/segladder/__init__.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

demo: setup ## what each kind of label buys on the embedded shapes: a leaderboard, a page (about three minutes)
	$(BIN)/segladder train experiment=demo
	$(BIN)/segladder leaderboard runs=runs/demo report=html significance=true 'budget=[10min,1h,10h]' out=runs/demo/leaderboard.html

test: setup ## the default test suite, two processes (about five minutes)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-all: setup ## the default suite and the longer tests of access, foreign runs, kills, sweeps (fifteen minutes)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not slow and not gpu'

lint: setup ## ruff (format and lint) and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup ## every benchmark as one table of ratios
	$(BIN)/segladder bench name=all

docs: $(VENV)/.docs ## docs/ and the studies as a site, build/site/html/index.html
	$(BIN)/python docs/gather.py
	$(BIN)/zensical build --strict --config-file build/site/mkdocs.yml

$(VENV)/.docs: $(VENV)/.done
	$(BIN)/pip install --quiet --editable '.[docs]'
	@touch $@
