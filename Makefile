# make demo: set up, then judge two real pairs.   make test: set up, then pass the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test lint docs clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "envequiv needs Python 3.11 or later (make PYTHON=python3.12)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable '.[dev]'
	$(BIN)/python -c 'from targets.pong.build import compiler; compiler()' 2>/dev/null || $(BIN)/python -m pip install --quiet --constraint requirements.txt ziglang
	touch $@

demo: setup
	$(BIN)/python examples/demo.py

test: setup lint
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .envequiv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
