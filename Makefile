# Everything that can be done with this folder. `make` alone lists it.
#
# ARGS reaches the program that is run: make test ARGS="-k rewind -x", make serve ARGS="--port 9000".

PYTHON ?= python3
UV ?= uv
ARGS ?=

BIN := .venv/bin
# Judged by content and not by make's file times (scripts/bootstrap.py says why), so every target
# that needs an environment asks for it each time; when all is well the answer takes 0.1 s.
PREPARE = @command -v $(PYTHON) >/dev/null \
	|| { echo "Greffier needs Python 3.11 or newer; there is no $(PYTHON) on the PATH." >&2; exit 1; }; \
	$(PYTHON) scripts/bootstrap.py
# No index address is written into a lock: each machine installs from its own.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help serve venv test quick test-external check format bench lock wheel clean

help: ## List what can be made
	@echo "usage: make TARGET [ARGS=\"...\"]"
	@awk -F ':[^#]*## ' '/^[a-z][a-z-]*:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: ## Run Greffier here, everything included (PostgreSQL too)
	$(PREPARE) serve
	@exec $(BIN)/greffier serve $(ARGS)

venv: ## Make .venv with all that development needs
	$(PREPARE) dev

test: ## Run every test (takes ARGS for pytest)
	$(PREPARE) dev
	$(BIN)/python -m pytest $(ARGS)

quick: ## Run the tests without those marked slow
	$(PREPARE) dev
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

# What knows no database, or brings its own whatever is said.
NO_DATABASE := agents bench channels docs embedded model project

test-external: ## Run what concerns the database against GREFFIER_TEST_DATABASE_URL
	$(PREPARE) dev
	@test -n "$$GREFFIER_TEST_DATABASE_URL" \
		|| { echo "Set GREFFIER_TEST_DATABASE_URL to a superuser's URL first." >&2; exit 1; }
	$(BIN)/python -m pytest tests $(addprefix --ignore=tests/,$(NO_DATABASE)) $(ARGS)

check: ## Lint (a docstring on every test too), format, types, import direction, no copies
	$(PREPARE) dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/duplicates.py src scripts bench tests

format: ## Let ruff put the code into its form
	$(PREPARE) dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: ## Measure against the budgets (takes ARGS for bench/run.py)
	$(PREPARE) dev
	$(BIN)/python bench/run.py $(ARGS)

lock: ## Write requirements/*.txt anew (needs uv; ARGS=--upgrade takes newer versions)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	$(COMPILE) --group dev --output-file requirements/dev.txt $(ARGS)
	@# uv keeps the versions it finds in its output: both locks then agree by construction.
	cp requirements/dev.txt requirements/serve.txt
	$(COMPILE) --group build --output-file requirements/serve.txt

wheel: ## Build the wheel into dist/
	$(PREPARE) dev
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean: ## Remove what was made here: .venv, dist, caches (never a data folder)
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path "./node_modules/*" -prune -exec rm -rf {} +
