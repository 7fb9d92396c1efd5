# make install  the environment alone
# make demo   the default run, from nothing: environment, optimized dataset, student
# make test   every test, in three tiers beside each other: docs/testing.md
# make quick  the first tier, for every change
# make test-newest  what depends on Flower, with the newest flwr that there is
# make gpu ROOT=DIR  what only a GPU shows, in eleven minutes; DIR has CIFAR-10 as Parquet files
# make check  ruff, mypy, import-linter, and the site
# make docs   the site, in site/
# make release  wheel and sdist, in dist/, unless placeholders are left
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
NEWEST = .venv-newest

# Where this is set, as in many containers, every process compiles all that it imports: torch, Flower
# and Ray take twice as long then, and every message to a SuperNode starts a process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test test-e2e test-in-process test-newest quick gpu check docs dist release format clean

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/coopt run

# Beside each other: the others give way to e2e, and use both cores when it is over.
test: $(VENV)/.installed-dev
	+$(MAKE) --jobs 2 --keep-going test-in-process test-e2e BUDGET="--budget 720"

test-e2e: $(VENV)/.installed-dev
	$(BIN)/pytest tests/e2e -n 3 --dist loadgroup $(BUDGET)

# Shown when it is over, so that each has its lines to itself.
test-in-process: $(VENV)/.installed-dev
	@nice $(BIN)/pytest tests/unit tests/cases tests/flower -n 2 $(BUDGET) > $(VENV)/in-process.log 2>&1; \
	code=$$?; cat $(VENV)/in-process.log; exit $$code

quick: $(VENV)/.installed-dev
	$(BIN)/pytest tests/unit tests/cases -m fast -n 2

# Everything else as in constraints.txt, but uv, of which each flwr needs another; looked up anew each time.
test-newest:
	test -d $(NEWEST) || $(PYTHON) -m venv $(NEWEST)
	grep -vE '^(flwr|uv)==' constraints.txt > $(NEWEST)/constraints.txt
	echo 'flwr[simulation]>=1.41' > $(NEWEST)/overrides.txt
	$(NEWEST)/bin/python -m pip install --quiet --upgrade uv
	$(NEWEST)/bin/uv pip install --python $(NEWEST)/bin/python -c $(NEWEST)/constraints.txt --override $(NEWEST)/overrides.txt --upgrade-package flwr -e ".[dev]"
	$(NEWEST)/bin/python -c 'from importlib.metadata import version; print("flwr", version("flwr"))'
	$(NEWEST)/bin/pytest tests/flower -n 2
	$(NEWEST)/bin/pytest tests/e2e/test_run.py tests/e2e/test_flower.py tests/e2e/test_faults.py -n 2 --dist loadgroup

gpu: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.gpu --root $(ROOT)

check: docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-dev
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder html docs site
	@echo "the site begins at site/index.html"

dist: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/uv build --quiet
	$(BIN)/twine check --strict dist/*

release:
	@! grep -n PLACEHOLDER pyproject.toml || { echo "error: give the addresses of the project in pyproject.toml first" >&2; exit 2; }
	$(MAKE) dist
	@echo "dist/ is ready: twine upload dist/*"

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(NEWEST) site dist

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
