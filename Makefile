PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test lint bench
.DEFAULT_GOAL := help

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.done ## build .venv with everything (about two minutes)

$(VENV)/.done: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

demo: setup ## train on the embedded shapes with all masks and with one, rank the runs, write panels (minutes)
	$(BIN)/segladder train -m experiment=demo method=fcn8s,unet
	$(BIN)/segladder train experiment=demo_base hydra.run.dir=runs/demo/base
	$(BIN)/segladder train -m experiment=demo_few_shot backbone.weights=runs/demo/base method=all_foreground,prototype,sg_one
	$(BIN)/segladder train experiment=demo_few_shot backbone.weights=runs/demo/base method=sg_one method.guidance=none
	$(BIN)/segladder leaderboard runs=runs/demo

test: setup ## the default test suite
	$(BIN)/python -m pytest -q

lint: setup ## ruff (format and lint) and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup ## every benchmark as one table of ratios
	$(BIN)/segladder bench name=all
