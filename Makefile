# make demo   the default run, from nothing: environment, optimized dataset, student
# make test   every test
# make gpu ROOT=DIR  what only a GPU shows, in eleven minutes; DIR has CIFAR-10 as Parquet files
# make check  ruff, mypy, import-linter
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test check format clean gpu

demo: $(VENV)/.installed
	$(BIN)/coopt run

test: $(VENV)/.installed-dev
	$(BIN)/pytest -m "not e2e" -n 2
	$(BIN)/pytest -m "e2e and not network" -n 2 --dist loadgroup
	$(BIN)/pytest -m "e2e and network" -n 3 --dist loadgroup

gpu: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.gpu --root $(ROOT)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt uv

$(VENV)/.installed: $(BIN)/uv pyproject.toml constraints.txt
	$(BIN)/uv pip install --python $(BIN)/python -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/uv pip install --python $(BIN)/python -c constraints.txt -e ".[dev]"
	touch $@
