# Two commands on a machine that has only python3 and make:
#   make demo    the example application, on a PostgreSQL of its own
#   make test    what proves the main job, on a real PostgreSQL
# The rest is for working on the code. PYTHON makes the environment VENV, with the newest Django that it admits or DJANGO:
#   make test VENV=.venv-5.2 PYTHON=python3.13 DJANGO=5.2

PYTHON ?= python3
VENV ?= .venv
DJANGO ?=
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help venv test test-all compat long coverage bench model oracle demo lint format types messages wheel clean

help:
	@echo 'make demo      install and serve the example application'
	@echo 'make test      run the tests that prove the main job, on one PostgreSQL: minutes'
	@echo '               (ARGS="-k name" for some; DJCRF_PG_TEST_POSTGRES=14...18 or DJCRF_PG_TEST_DSN for another server)'
	@echo 'make test-all  run every test: also the slow ones, browsers, packages, an older PostgreSQL'
	@echo 'make compat    run what depends on PostgreSQL on each version, with the oldest and the newest Python and'
	@echo '               Django here, and write docs/reference/compatibility.md'
	@echo 'make long      the tests of volume and of a roaming client, with the numbers that the'
	@echo '               documentation names, and many histories of the wire protocol: half an hour'
	@echo 'make coverage  run the tests, report the branches they miss, and fail below 95 %'
	@echo 'make bench     speed beside the peers, as ratios measured in turns: twenty-five minutes'
	@echo '               (ARGS="write-one latency" for some, "--quick" to see that it runs, "--markdown" for the docs)'
	@echo 'make model     check the models with spin, which it needs beside gcc'
	@echo 'make oracle    compare a client with the database while things break (ARGS="--minutes 60 --slow")'
	@echo 'make lint      ruff and the import contract; "make format" mends what can be mended'
	@echo 'make types     mypy'
	@echo 'make messages  write the page of errors and checks again, after a message has changed'
	@echo 'make wheel     build the wheel and look into it'
	@echo 'make venv      only the virtual environment ($(VENV)), with everything for the targets above'

venv: $(VENV)/.installed-test $(VENV)/.installed-lint

test: $(VENV)/.installed-test
	VENV='$(VENV)' sh scripts/test.sh main $(ARGS)

test-all: $(VENV)/.installed-test
	VENV='$(VENV)' sh scripts/test.sh all $(ARGS)

compat:
	scripts/compat.sh $(ARGS)

long: $(VENV)/.installed-test
	DJCRF_PG_TEST_LONG=1 $(BIN)/pytest tests/acceptance/test_volume.py tests/acceptance/test_roaming.py tests/unit/test_protocol.py $(ARGS)

# Each run has only its part; the report of all decides by `fail_under`.
coverage: $(VENV)/.installed-test
	$(BIN)/coverage erase
	VENV='$(VENV)' sh scripts/test.sh all --cov --cov-append --cov-report= --cov-fail-under=0 $(ARGS)
	$(BIN)/coverage report

# Without a peer the rest is still measured; the results say which is missing.
bench: $(VENV)/.installed-bench
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[peers]' || true
	$(BIN)/python -m benchmarks $(ARGS)

model:
	$(PYTHON) models/check.py $(ARGS)

oracle: $(VENV)/.installed-test
	$(BIN)/python -m tests.oracle $(ARGS)

demo: $(VENV)/.installed-demo
	$(BIN)/python example/run.py $(ARGS)

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/.installed-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-lint
	$(BIN)/mypy

messages: $(VENV)/.installed-lint
	$(BIN)/python scripts/messages.py

wheel: $(VENV)/.installed-lint
	rm -rf build dist
	$(BIN)/python -m build --wheel .
	$(BIN)/python scripts/check_wheel.py dist/*.whl

clean:
	rm -rf '$(VENV)' .venv-* .postgres build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# mypy reads the Django settings and with them every installed app: its environment needs what the tests need.
$(VENV)/.installed-lint: EXTRAS = test,lint
$(VENV)/.installed-test: EXTRAS = test
$(VENV)/.installed-bench: EXTRAS = bench
$(VENV)/.installed-demo: EXTRAS = demo,redis
$(VENV)/.installed-%: pyproject.toml scripts/venv.sh
	PYTHON='$(PYTHON)' sh scripts/venv.sh '$(VENV)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]' $(if $(DJANGO),'Django==$(DJANGO).*')
	@touch '$@'
