# Two commands do all the set-up: each makes its own virtual environment in .venv if there is none.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test check bench clean
help:   ## say what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/'

demo: $(VENV)/installed   ## run a whole private federation on real data (runs/demo/report.html)
	$(BIN)/fedcredit demo --out runs/demo

test: $(VENV)/installed   ## style, types, structure and all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 4 --dist worksteal

bench: $(VENV)/installed   ## measure the promised figures (runs/bench/*.json)
	$(BIN)/fedcredit bench

bench-%: $(VENV)/installed
	$(BIN)/fedcredit bench $*

# torch comes first and exact: on Linux a plain `torch` would fetch gigabytes of GPU libraries.
$(VENV)/installed: pyproject.toml
	@echo "Making $(VENV) and installing fedcredit with everything the demo and the tests need ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

clean:   ## remove the environment and what was made
	rm -rf $(VENV) runs dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
