# Two commands do everything: `make quickstart` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test check check-slow bench lint types imports format docs clean

quickstart: $(VENV)/ready ## teach the default model ten invented disasters, and compare with SFT
	$(BIN)/selftaught quickstart $(ARGS)

test: $(VENV)/ready ## the fast tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" $(ARGS)

check: lint types imports test ## everything that CI runs

check-slow: $(VENV)/ready ## tests on the real model
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow $(ARGS)

bench: $(VENV)/ready ## everything in docs/benchmarks.md, against TRL in an environment of its own (hours)
	$(BIN)/python bench/run.py $(ARGS)

lint: $(VENV)/ready
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench

types: $(VENV)/ready
	$(BIN)/mypy

imports: $(VENV)/ready
	$(BIN)/lint-imports

format: $(VENV)/ready
	$(BIN)/ruff check --fix src tests bench
	$(BIN)/ruff format src tests bench

docs: $(VENV)/ready ## regenerate docs/cli.md and docs/configuration.md
	$(BIN)/python -m selftaught.docs

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("selftaught needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs
