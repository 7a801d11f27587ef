# Every target sets itself up: only Python (>= 3.11), git and make are needed.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PYTEST = $(BIN)/python tests/slurm/cluster.py run $(BIN)/python -m pytest -n 3 --dist worksteal

.PHONY: help test newest oldest lint demo bench notebooks clean

help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# `uv` of this machine, or one from the package index inside the environment
UV = $$(command -v uv || echo $(BIN)/uv)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	command -v uv >/dev/null || $(BIN)/pip install --quiet uv

# --inexact: keep the uv that was installed there
$(VENV)/.ready: pyproject.toml uv.lock | $(BIN)/python
	UV_PROJECT_ENVIRONMENT=$(VENV) $(UV) sync --quiet --locked --inexact --python $(BIN)/python
	touch $@

test: lint  ## check style and types, run all tests, on a real Slurm if one can be had
	$(PYTEST)

# Both resolve pyproject.toml without uv.lock, into environments of their own
newest: VENV := .venv-newest
newest: RESOLUTION := highest
newest:  ## run all tests with the newest versions of all dependencies
oldest: VENV := .venv-oldest
oldest: RESOLUTION := lowest-direct
oldest:  ## run all tests with the lowest versions that pyproject.toml allows
newest oldest:
	$(PYTHON) -m venv --clear $(VENV)
	command -v uv >/dev/null || $(BIN)/pip install --quiet uv
	$(UV) pip install --quiet --python $(BIN)/python --resolution $(RESOLUTION) --editable . --group dev
	$(UV) pip list --quiet --python $(BIN)/python
	$(PYTEST)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: $(VENV)/.ready  ## on handwritten digits: prepare and train; then measure 600 images on all cores
	cd docs/demo && ../../$(BIN)/python prepare.py && ../../$(BIN)/python train.py
	cd docs/demo && ../../$(BIN)/runctx tree latest && ../../$(BIN)/runctx show latest
	cd docs/demo && ../../$(BIN)/python images.py && ../../$(BIN)/python measure.py && ../../$(BIN)/python measure_all.py
	cd docs/demo && ../../$(BIN)/runctx status latest
	@echo 'hint: `$(BIN)/runctx ui` shows these runs, their numbers and curves in a browser'

notebooks: $(VENV)/.ready  ## execute the notebooks anew, in place
	$(BIN)/python -m tests.notebooks

bench: $(VENV)/.ready  ## measure against peers; takes a while and 10 GB of disk
	$(BIN)/python -m tests.bench

clean:  ## remove the virtual environments and caches
	rm -rf .venv* .pytest_cache .mypy_cache .ruff_cache .hypothesis
