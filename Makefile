# Every target sets itself up: only Python (>= 3.11), git and make are needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help test lint demo bench notebooks clean

help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --editable . --group dev
	touch $@

test: lint  ## check style and types, run all tests, on a real Slurm if one can be had
	$(BIN)/python tests/slurm/cluster.py run $(BIN)/python -m pytest -n 3 --dist worksteal

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
