# Everything that a contributor or an operator of one machine types. `make` alone lists it.
# Relative paths only: the directory may be called anything that Python can install below (tools/environment.py says what it cannot).

# One that may run Rollover, the oldest first: the locks are resolved and the types are checked for that one.
SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
ifndef PYTHON
PYTHON := $(shell for each in python3.11 python3.12 python3.13 python3; do \
  "$$each" -c '$(SUITABLE)' 2>/dev/null && echo "$$each" && break; done)
endif
VENV := .venv/bin/python
# Options for what is started: make demo ARGS="--for 30s --json", make test ARGS="-k grace"
ARGS ?=
# Test processes side by side: one more than the two cores for which the tests are timed, since many wait for what they have started.
JOBS ?= 3
# Whether a whole test run is also measured, and the least coverage then, branches counted, in percent: of the subject, and of everything.
MEASURED ?= yes
COVER_SUBJECT := 95
COVER_ALL := 90
# How many rows `make canary` wraps anew under other keys, being killed every second; `make test` has fewer.
ROWS ?= 100000
# What `make lock` resolves with; exact, so that two people get the same files.
UV := uv==0.13.9

# Modules come from the environment and this directory, never from the caller's; an empty HOME is not the root directory.
unexport PYTHONPATH PYTHONHOME
ifeq ($(strip $(HOME)),)
unexport HOME
endif

.DEFAULT_GOAL := help
.PHONY: help demo test lint lint-compose ci crash sim mutants chaos canary bench flower secrets lock audit clean python linux runtime dev

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | while IFS='	' read -r name text; do printf 'make %-13s %s\n' "$$name" "$$text"; done

demo: linux runtime ## five resources rotate before your eyes; Ctrl-C ends it (ARGS="--for 30s --json")
	@$(VENV) -m worker demo $(ARGS)

test: linux dev ## every test, on servers that the tests start themselves (ARGS="-k grace")
ifeq ($(MEASURED)$(strip $(ARGS)),yes)
	@$(VENV) -m coverage erase
	@$(VENV) -m coverage run -m pytest -n $(JOBS) --dist loadgroup
	@$(VENV) -m coverage combine --quiet
	@$(VENV) -m coverage report --include='rotation/*' --fail-under=$(COVER_SUBJECT)
	@$(VENV) -m coverage report --fail-under=$(COVER_ALL)
else
	@$(VENV) -m pytest -n $(JOBS) --dist loadgroup $(ARGS)
endif

canary: linux dev ## no secret is readable anywhere, whatever fails; prints what was searched, driven, planted and refused
	@CANARY_ROWS=$(ROWS) $(VENV) -m pytest -n 2 --dist loadgroup tests/canary $(ARGS)

lint: dev lint-compose ## style, types, the direction of imports, dependencies
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@$(VENV) -m mypy
	@$(VENV) -c 'import sys; from importlinter.cli import lint_imports_command as lint; sys.exit(lint())'
	@$(VENV) -m deptry .

lint-compose: ## docker-compose.yml as Docker reads it, where a Docker Compose is installed
	@if docker compose version >/dev/null 2>&1; then docker compose config --quiet; \
	elif command -v docker-compose >/dev/null; then docker-compose config --quiet; \
	else echo 'lint-compose: no Docker Compose here; the tests hold the file against the schema'; fi

ci: lint test ## what CI runs: lint, test, and short forms of the proofs, the same ones each time
	@$(MAKE) --no-print-directory sim SEEDS=10000
	@$(MAKE) --no-print-directory crash SAMPLE=60 SEED=1
	@$(MAKE) --no-print-directory chaos FOR=3m SEED=1

crash: linux dev ## a real worker dies at every boundary, and must have lost nothing (SAMPLE=60 SEED=1 for some)
	@$(VENV) -m tests.crash $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED)) $(ARGS)

sim: dev ## worlds in which anything may happen, on the real stories (SEEDS=10000, SEED=7 for one with its story)
	@$(VENV) -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000)) $(ARGS)

mutants: dev ## each safeguard of the protocol left out: which worlds find it
	@$(VENV) -m tests.mutants $(ARGS)

chaos: linux dev ## everything at once goes wrong with the whole system, and customers notice nothing (FOR=3m SEED=7)
	@$(VENV) -m tests.chaos $(if $(FOR),--for $(FOR)) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: linux dev ## the whole worker against a bare script that does the same work
	@$(VENV) -m bench $(ARGS)

flower: dev ## Flower, the task dashboard, on 127.0.0.1 behind a password
	@$(VENV) -m celery -A worker.app flower --conf=tools/flowerconfig.py $(ARGS)

secrets: runtime ## the secrets that docker-compose.yml hands to its services, in ./secrets
	@$(VENV) tools/deployment_secrets.py

lock: python ## resolve the requirements*.lock files anew; pins stay unless ARGS="--upgrade"
	@test -x .venv-lock/bin/uv || '$(PYTHON)' -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check '$(UV)'
	@$(call resolve,--extra embedded --group build) -o requirements.lock
	@$(call resolve,--all-extras --group dev -c requirements.lock) -o requirements-dev.lock
	@$(call resolve,--extra flower -c requirements-dev.lock) -o requirements-image.lock

# Versions and hashes for every platform, but no addresses: where packages come from is the installing machine's business.
resolve = .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $(ARGS) $(1) pyproject.toml

audit: dev ## known vulnerabilities of what the locks pin; asks a service on the internet, so CI does not run it
	@$(VENV) -m pip_audit --require-hashes --disable-pip -r requirements-dev.lock $(ARGS)

clean: ## remove the environments and every cache
	rm -rf .venv .venv-lock .coverage .coverage.* .hypothesis .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

python:
	@'$(PYTHON)' -c '$(SUITABLE)' 2>/dev/null || { printf '%s\n' 'rollover: Python 3.11, 3.12 or 3.13 is needed.' \
	  'On Debian and Ubuntu: apt install python3 python3-venv. One that lies elsewhere: make PYTHON=/path/to/python3.11 …' >&2; exit 1; }

linux:
	@test "$$(uname -s)" = Linux || { printf '%s\n' \
	  'rollover: the PostgreSQL and Valkey that demo, tests and bench start by themselves are built for Linux.' \
	  'Use a Linux machine, WSL 2, or a container, for example from here:' \
	  '  docker run -it -v "$$PWD":/here:ro python:3.11 sh -c "cp -R /here /rollover && cd /rollover && make demo"' >&2; exit 1; }

runtime dev: python
	@'$(PYTHON)' tools/environment.py $@
