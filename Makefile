# Needs only Python 3.11 or later and make; everything else is installed into .venv.
#   make test        all tests that need nothing else installed
#   make demo        stop a busy worker and show its report; then replace four workers by those of another release
#   make demo-admin  the same report in the admin
#   make screenshots the pictures of the documents, of what `make demo` has left; needs chromium and chromedriver
#   make chaos       inject faults into real workers and account for every job (SEED=, ROUNDS=, STORM=); docs/chaos.md
#   make compat      RQ's own test suite against our worker classes, RQ 2.6.1 and 3.0.0 (ARGS=--full, ARGS='--rq 3.0.0')
#   make prove       every order of events in small worlds of workers, on the real scripts (SEED=, MINUTES=)
#   make bench       side by side with RQ's stock worker
#   make bench-admin the admin's pages over a million reports (DATABASE_URL=, BENCH_DIR=, ARGS=100000)
#   make soak        a fleet under constant deploys and faults: fails if memory, descriptors, keys or rows grow (MINUTES=); docs/soak.md
#   make release     build twice, check, and install from a package index of its own: a dry run (ARGS=--rehearsal); docs/releasing.md
#   make compare     the same faults for this package and other job systems, into docs/comparison/ (ARGS=--only ours,celery)
#   make docs        the documentation as a site, in site/
#   make lint        style, types, imports
#   make clean       remove everything that the above created

PYTHON ?= python3
# Most tests wait for processes: a core carries two at a time.
JOBS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
ARGS ?=
ROUNDS ?= 200
STORM ?= 500
MINUTES ?= 30
SEED ?=
# A pip constraints file, to test with versions other than the newest.
CONSTRAINTS ?=

BIN = .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
TIERS = tests/unit tests/db tests/integration tests/model tests/process

.PHONY: test demo demo-admin screenshots bench bench-admin chaos compat prove soak release compare docs lint messages clean

test: .venv/installed
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(TIERS) $(ARGS)

demo: .venv/installed
	$(BIN)/python -m demo_project demo

demo-admin: .venv/installed
	$(BIN)/python -m demo_project demo_admin

screenshots: .venv/installed
	$(PIP) --editable '.[browser]'
	$(BIN)/python -m tests.browser.screenshots

bench: .venv/installed
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-admin: .venv/installed
	$(BIN)/python -m tests.benchmarks.admin $(ARGS)

chaos: .venv/installed
	$(BIN)/python -m tests.chaos --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) $(ARGS)
	STORM=$(STORM) STORM_SLACK=0 $(if $(SEED),SEED=$(SEED)) $(BIN)/python -m pytest --timeout 0 -rP tests/process/test_storm_deadline.py
	$(BIN)/python -m tests.chaos --rounds 60 $(if $(SEED),--seed $(SEED)) --stock

compat: .venv/installed
	$(BIN)/python -m tests.compat $(ARGS)

prove: .venv/installed
	$(BIN)/python -m tests.model --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

soak: .venv/installed
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

release: .venv/installed
	$(PIP) --editable '.[release]'
	$(BIN)/python -m tests.release $(ARGS)

compare: .venv/installed
	$(BIN)/python -m tests.compare --rounds 2 $(if $(SEED),--seed $(SEED)) $(ARGS)

docs: .venv/installed
	$(PIP) --editable '.[docs]'
	$(BIN)/mkdocs build --strict --quiet

lint: .venv/installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run

# Needs GNU gettext, as nothing else does.
messages: .venv/installed
	cd graceful && ../$(BIN)/django-admin makemessages --locale zh_Hans --add-location file --no-obsolete
	cd graceful && ../$(BIN)/django-admin compilemessages

clean:
	rm -rf .venv .compat .compare .demo .soak .release build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or later is needed, this is %d.%d: make PYTHON=python3.12 $(MAKECMDGOALS)' % sys.version_info[:2])"
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv; this takes a minute the first time."
	$(PIP) --editable '.[test,demo]'
	@touch $@

.venv/installed-lint: .venv/installed
	$(PIP) --editable '.[test,demo,postgres,prometheus,lint]'
	@touch $@
