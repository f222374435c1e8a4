# make quickstart   a virtual environment, the pinned dependencies, and a whole run on the embedded data
# make test         the same set-up with test tools; linters, types, doctests and tests
# make help         these lines

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PIPELINE ?= pipelines/complete_journey.toml
# What `make test` installs beside the package.
EXTRAS ?= baselines,test

.PHONY: help quickstart install test lint format clean

help:
	@sed -n 's/^# \(make\)/\1/p' Makefile

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[baselines]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[$(EXTRAS)]'
	@touch $@ $(VENV)/.installed

# make install      only the virtual environment
install: $(VENV)/.installed

quickstart: $(VENV)/.installed
	$(BIN)/tfrs-fashion run $(PIPELINE)

# make lint         ruff and mypy
lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

# make format       let ruff rewrite what it can
format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# make clean        remove the virtual environment, runs and caches; released artifacts stay
clean:
	rm -rf $(VENV) runs build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
