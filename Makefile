# Everything a newcomer or CI needs. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.installed
# What the daemon needs, without what builds and tests it.
RUN_STAMP := $(VENV)/.installed-to-run
UV_VERSION := 0.13.8
# Name an interpreter to override the search: make install PYTHON=/opt/python3.13/bin/python3
PYTHON ?=
# Arguments handed on: make run ARGS="--set log.level=DEBUG", make test ARGS="-k pki"
ARGS ?=
SEEDS ?= 5000
# Twice two cores: tests wait as much as they work. Files stay whole.
TEST_WORKERS ?= 4
SOAK_SECONDS ?= 600

.PHONY: help
help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# ------------------------------------------------------------------------------------- install

# Picks the first interpreter >= 3.11 that really starts (version-manager shims may not).
define FIND_PYTHON
found=""; \
for candidate in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11 python); do \
	if "$$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; \
	then found="$$candidate"; break; fi; \
done; \
if [ -z "$$found" ]; then \
	echo "trunkline needs Python 3.11 or newer; looked for: $(if $(PYTHON),$(PYTHON),python3, python3.14 .. python3.11, python)" >&2; \
	echo "install one, or name it: make install PYTHON=/path/to/python3" >&2; \
	exit 1; \
fi
endef

# Some distributions split ensurepip off (Debian: python3-venv). An environment without pip can
# still be filled by the interpreter's own pip (>= 22.3); without that either, say what to install.
define MAKE_VENV
if ! "$(PY)" -c 'import pip' 2>/dev/null; then \
	$(FIND_PYTHON); \
	rm -rf "$(VENV)"; \
	if "$$found" -c 'import ensurepip' 2>/dev/null && "$$found" -m venv "$(VENV)"; then :; \
	elif "$$found" -m venv --without-pip "$(VENV)" \
		&& "$$found" -m pip --python "$(PY)" install --quiet --disable-pip-version-check pip; then :; \
	else \
		rm -rf "$(VENV)"; \
		echo "cannot create a virtual environment with $$found: it has neither ensurepip nor a pip >= 22.3" >&2; \
		echo "on Debian and Ubuntu: apt install python3-venv; elsewhere install pip for $$found" >&2; \
		exit 1; \
	fi; \
fi
endef

# Locked versions and hashes only; the project itself is linked in, built by the locked setuptools.
# Of what pip says one line a package is left; complaints go to stderr as they are.
define INSTALL
$(MAKE_VENV)
echo "installing the locked packages of $(1) into $(VENV)"
$(PY) -m pip install --disable-pip-version-check --no-color --require-hashes -r $(1) \
	| awk -v total="$$(grep '^[a-z]' $(1) | grep -cv win32)" '/^(Collecting|Requirement already satisfied:) / \
		{ line = $$0; sub(/^[^:]*satisfied: /, "", line); sub(/^Collecting /, "", line); sub(/ .*/, "", line); \
		  printf "  %d of %d: %s\n", ++n, total, line; fflush() } \
		/^Installing collected/ { print "  unpacking"; fflush() }'
PYTHONWARNINGS=ignore $(PY) -m pip install --quiet --disable-pip-version-check \
	--no-deps --no-build-isolation -e .
endef

$(RUN_STAMP): requirements-run.lock pyproject.toml
	@$(call INSTALL,$<)
	@touch $@

$(STAMP): requirements.lock pyproject.toml
	@$(call INSTALL,$<)
	@touch $@ $(RUN_STAMP)

.PHONY: install
install: $(STAMP) ## create .venv with .venv/bin/trunkline (locked, hashed)

# ----------------------------------------------------------------------------------------- run

.PHONY: run
run: $(RUN_STAMP) ## start the daemon with embedded controller, development PKI and the demo
	@exec $(BIN)/trunkline serve --demo $(ARGS)

# --------------------------------------------------------------------------------------- check

.PHONY: check
check: lint format-check types imports generated ## all static checks (make -k check: all findings)

.PHONY: lint format-check types imports generated
lint: $(STAMP) ## ruff
	$(BIN)/ruff check .
format-check: $(STAMP) ## ruff format, changing nothing
	$(BIN)/ruff format --check .
types: $(STAMP) ## mypy --strict
	$(BIN)/mypy
imports: $(STAMP) ## who may import whom (import-linter)
	$(BIN)/lint-imports --no-logo
generated: $(STAMP) ## generated protobuf modules and reference pages are current
	$(PY) -m tools.proto --check
	$(PY) -m config.reference --check

.PHONY: test
test: $(STAMP) ## every test that must pass
	$(PY) -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder --durations=20 $(ARGS)

.PHONY: soak
soak: $(STAMP) ## long and heavy runs (SOAK_SECONDS=600)
	TRUNKLINE_SOAK_SECONDS=$(SOAK_SECONDS) $(PY) -m pytest -m soak --timeout 0 --hypothesis-profile soak $(ARGS)

.PHONY: programs
programs: $(STAMP) ## real programs through the forwarder (as root: installs them with apt)
	apt-get install -y -qq --no-install-recommends redis-server redis-tools openssh-server \
	  openssh-client netcat-openbsd postgresql
	BIN=$(BIN) tests/programs/rendezvous.sh

.PHONY: simulate
simulate: $(STAMP) ## seeded virtual-clock simulation with many seeds (SEEDS=5000)
	$(PY) -m tests.runtime.simulate --seeds $(SEEDS) $(ARGS)

.PHONY: bench
bench: $(STAMP) ## benchmarks of the actor runtime beside their baselines
	$(BIN)/trunkline bench runtime $(ARGS)

# ----------------------------------------------------------------------------------- generated

.PHONY: proto
proto: $(STAMP) ## regenerate the protobuf modules from the .proto files
	$(PY) -m tools.proto

.PHONY: docs
docs: $(STAMP) ## regenerate docs/configuration.md and config/defaults.toml from the schema
	$(PY) -m config.reference --write

.PHONY: lock
lock: $(STAMP) ## re-resolve requirements.lock (keeps pins that still fit; ARGS=--upgrade renews)
	$(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--all-extras pyproject.toml -o requirements.lock --no-header $(ARGS)
	echo setuptools | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--constraints requirements.lock pyproject.toml - -o requirements-run.lock --no-header

.PHONY: clean
clean: ## remove the environment, caches and the development state
	rm -rf $(VENV) .trunkline build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
