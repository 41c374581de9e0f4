# Everything a person runs here. `make help` lists it. No root, no Docker and no GPU are needed for `make demo`.
#
# Variables
#   PYTHON        the interpreter that .venv is made with (3.11 or newer; found by itself)
#   TORCH         what `make test` installs as torch, before anything that could bring another build of it
#   TORCH_INDEX   another package index for torch alone, for instance the one that holds its CPU builds
#   PROCESSES     how many share the tests of `make test`; those of a path in ARGS run in one (0: always in one)
#   ARGS          more arguments for the command at hand: make test ARGS="-k bundle"

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

ifndef PYTHON
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
endif
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
PROCESSES ?= 2
ARGS ?=

# Only relative paths: the folder's own path may hold spaces.
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
SERVING := $(VENV)/.serving
EVERYTHING := $(VENV)/.everything
OPENVINO := $(VENV)/openvino

.PHONY: help
help: ## list what can be made
	@echo "animato: one face and one sentence become a short video"
	@echo
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r target words; do \
		printf '%-22s %s\n' "$$target" "$$words"; done
	@echo
	@sed -n '/^# Variables/,/^$$/s/^# //p' Makefile

.PHONY: demo
demo: $(SERVING) ## animate a sample face with "smiling" through the whole service, into out/
	@$(BIN)/animato demo $(ARGS)

.PHONY: up
up: $(SERVING) ## start the service and its page on http://127.0.0.1:8000 (Ctrl-C stops it)
	@$(BIN)/animato up $(ARGS)

.PHONY: doctor
doctor: $(SERVING) ## say what is missing on this machine and how to get it
	@$(BIN)/animato doctor $(ARGS)

.PHONY: setup
setup: $(EVERYTHING) ## install everything for work on the project, torch included

# Many tests wait for servers and films, so two processes pay also where cores are few; for one file they would not.
# The networks of the tests are so small that threads only stand in each other's way.
SHARED := $(if $(filter tests/%,$(ARGS)),,--numprocesses $(PROCESSES) --dist worksteal)

.PHONY: test
test: $(EVERYTHING) ## run all tests (installs torch and the development tools first)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest $(SHARED) $(ARGS)

.PHONY: test-openvino
test-openvino: $(EVERYTHING) $(OPENVINO) ## run the tests of the runtime with OpenVINO beside the environment
	@PYTHONPATH=$(OPENVINO) OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest \
		tests/model/test_runtime.py tests/model/test_sessions.py tests/model/test_ncnn.py tests/model/test_wide_layers.py $(ARGS)

.PHONY: lint
lint: $(EVERYTHING) ## style: ruff check and ruff format --check
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

.PHONY: format
format: $(EVERYTHING) ## let ruff put the style right
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

.PHONY: types
types: $(EVERYTHING) ## types: mypy, strict for what serves
	$(BIN)/python -m mypy

.PHONY: layers
layers: $(EVERYTHING) ## who may import whom: import-linter
	$(BIN)/lint-imports

.PHONY: openapi
openapi: $(EVERYTHING) ## write openapi.yaml from the code
	$(BIN)/python -m services.api.openapi

.PHONY: openapi-check
openapi-check: $(EVERYTHING) ## fail when openapi.yaml is not what the code says
	$(BIN)/python -m services.api.openapi --check

.PHONY: check
check: lint types layers openapi-check test ## everything that must hold before a commit

.PHONY: contract
contract: $(EVERYTHING) ## try what openapi.yaml promises on a running service: 1,000 cases and more
	@$(BIN)/python -m tests.contract $(ARGS)

.PHONY: contract-night
contract-night: $(EVERYTHING) ## the same with 10,000 cases, others every night
	@$(BIN)/python -m tests.contract --cases 10000 --examples 720 --seed $${SEED:-$$(date +%s)} $(ARGS)

.PHONY: fuzz
fuzz: $(EVERYTHING) ## damage pictures, bundles, checkpoints and requests by the thousand (FUZZ_CASES, FUZZ_SEED)
	FUZZ_CASES=$${FUZZ_CASES:-5000} FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} $(BIN)/python -m pytest tests/fuzz $(ARGS)

.PHONY: lock
lock: $(EVERYTHING) ## pin what pyproject.toml asks for, with hashes (ARGS=--upgrade takes the newest)
	$(BIN)/python -m deploy.supply.lock $(ARGS)
	$(BIN)/python -m deploy.supply.licences

.PHONY: licences
licences: $(EVERYTHING) ## write docs/licences.md; fail where a licence does not go with what is served
	$(BIN)/python -m deploy.supply.licences $(ARGS)

.PHONY: sbom
sbom: $(EVERYTHING) ## write the bills of materials of the images into out/sbom (CycloneDX)
	$(BIN)/python -m deploy.supply.sbom $(ARGS)

.PHONY: audit
audit: $(EVERYTHING) ## look every locked version up in the advisory database (pip-audit --strict)
	$(BIN)/python -m deploy.supply.audit $(ARGS)

.PHONY: bench
bench: $(EVERYTHING) $(OPENVINO) ## measure frames per second, latency, overhead and memory
	$(BIN)/python -m bench $(ARGS)

.PHONY: chaos
chaos: $(EVERYTHING) ## kill, freeze and cut everything under 300 jobs: none may be lost (two minutes; ends in one JSON line)
	@$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: chaos-night
chaos-night: $(EVERYTHING) ## the same for ten minutes: 2,000 jobs, default leases, kills of the API, stalls of the database
	@$(BIN)/python -m tests.chaos --night $(ARGS)

# Beside the environment, not in it: installed there it would run everybody's graphs.
$(OPENVINO): $(EVERYTHING) deploy/locks/worker-cpu-openvino.txt
	@rm -rf $@
	@sed -n '/^openvino==/,/[^\\]$$/p' deploy/locks/worker-cpu-openvino.txt > $(VENV)/openvino.lock
	@$(PIP) --no-deps --require-hashes --target $@ --requirement $(VENV)/openvino.lock
	@touch $@

.PHONY: bench-train
bench-train: $(EVERYTHING) ## measure images per second of every training stage, against the plain way
	$(BIN)/python -m bench.train $(ARGS)

.PHONY: page-picture
page-picture: $(EVERYTHING) ## take docs/images/page.png anew (needs Chromium)
	$(BIN)/python -m tests.e2e.page_picture $(ARGS)

.PHONY: clean
clean: ## remove the environment, caches, results and the embedded service's data
	rm -rf $(VENV) out .animato .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# ---- the environment. A stamp is older than pyproject.toml exactly when something must be installed. ------------

define NO_PYTHON

animato needs Python 3.11 or newer; none was found on the PATH.
  Debian or Ubuntu:  sudo apt install python3 python3-venv
  another place:     make demo PYTHON=/path/to/python3.12

endef
export NO_PYTHON

define NO_VENV

This Python can't make an environment: its module ensurepip is missing (Debian and Ubuntu keep it in a package of its own).
  with root:     sudo apt install python3-venv
  without root:  make demo PYTHON=/path/to/another/python3 (3.11 or newer, from uv, pyenv or conda)

endef
export NO_VENV

# Debian's own Python comes without ensurepip; virtualenv, uv or an outer pip will do as well.
$(BIN)/python:
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { printf '%s\n' "$$NO_PYTHON" >&2; exit 1; }
	@echo "Making the environment $(VENV) with $$("$(PYTHON)" --version)"
	@if "$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null; then "$(PYTHON)" -m venv $(VENV); \
	elif "$(PYTHON)" -m virtualenv --version >/dev/null 2>&1; then "$(PYTHON)" -m virtualenv --quiet $(VENV); \
	elif command -v uv >/dev/null 2>&1; then uv venv --quiet --seed --python "$(PYTHON)" $(VENV); \
	elif "$(PYTHON)" -m pip --version >/dev/null 2>&1 && "$(PYTHON)" -m venv --without-pip $(VENV); then \
		"$(PYTHON)" -m pip --python $(BIN)/python install --quiet pip; \
	else rm -rf $(VENV); printf '%s\n' "$$NO_VENV" >&2; exit 1; fi

# The versions and hashes of deploy/locks; the project itself is built by what they hold too.
PROJECT := --no-deps --no-build-isolation --editable .

$(SERVING): pyproject.toml deploy/locks/serving.txt | $(BIN)/python
	@echo "Installing what serves (no torch); a minute or two, the first time only"
	@$(PIP) --require-hashes --requirement deploy/locks/serving.txt
	@$(PIP) $(PROJECT)
	@touch $@

$(EVERYTHING): pyproject.toml deploy/locks/development.txt $(SERVING) | $(BIN)/python
	@echo "Installing torch and the development tools; some minutes, the first time only"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	@$(PIP) --require-hashes --requirement deploy/locks/development.txt
	@$(PIP) $(PROJECT)
	@touch $@
