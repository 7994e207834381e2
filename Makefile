# Needs make and a Python of at least 3.11; everything else is installed into .venv, made when there is none.
#
#   make test                 format, lint, types, floors, then all tests, in two halves side by side
#   make lint                 the first half of that
#   make demo                 three nodes at real work, two of which are killed: nothing is lost
#   make sim SEEDS=n          n simulated worlds under faults
#   make mutations SEEDS=n    the code broken in one line each: which of n worlds notices?
#   make chaos ROUNDS=n       n rounds of kills and other troubles over real processes
#   make partitions ROUNDS=n  five processes in a network that falls apart in each way, n times (root, ip, nft)
#   make soak MINUTES=n       simulated worlds, kills and partitions in turn for n minutes, up to the first that breaks
#   make bench                the short version of every bench; bench/README.md says how to read it
#   make test-all             test, then unit to simulation again on each other Python that is here
#   make clean                remove what the above made
#
# PYTHON=python3.12 chooses another Python.

PYTHON ?= python3
VENV ?= .venv
SEEDS ?= 60
ROUNDS ?= 1
MINUTES ?= 10
OTHER_PYTHONS ?= 3.12 3.13
BENCHES ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Quickest first. What is in tests/ but not named here runs last, so that nothing is forgotten.
RULES := $(wildcard tests/test_*.py)
FAST_RINGS := $(wildcard tests/unit tests/conversations tests/property tests/simulation)
SLOW_RINGS := $(wildcard tests/integration tests/chaos)
OTHER_RINGS := $(filter-out $(FAST_RINGS) $(SLOW_RINGS),$(patsubst %/,%,$(sort $(dir $(wildcard tests/*/test_*.py)))))
RINGS = $(RULES) $(FAST_RINGS)

.PHONY: test lint quick slow rings test-all demo sim mutations chaos partitions soak bench clean

# One half computes on one core, the other mostly waits for real processes: side by side they take half the time.
test: lint
	@$(MAKE) --no-print-directory -j2 quick slow

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python -m pytest -q $(RULES)

quick: $(INSTALLED)
	$(BIN)/python -m pytest $(FAST_RINGS) $(OTHER_RINGS)

# What it says comes at its end, so that the two do not write into one another.
slow: $(INSTALLED)
	@said=$$(mktemp) && { $(BIN)/python -m pytest $(SLOW_RINGS) >"$$said" 2>&1; code=$$?; cat "$$said"; rm -f "$$said"; exit $$code; }

rings: $(INSTALLED)
	$(BIN)/python -m pytest $(RINGS)

test-all: test
	@for version in $(OTHER_PYTHONS); do \
	  found=; \
	  for candidate in python$$version $$HOME/.pyenv/versions/$$version.*/bin/python; do \
	    if "$$candidate" -c '' 2>/dev/null; then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "test-all: Python $$version is not on this machine, so nothing ran on it"; continue; fi; \
	  echo "test-all: Python $$version ($$found)"; \
	  $(MAKE) --no-print-directory rings VENV=.venv-$$version PYTHON=$$found || exit 1; \
	done

demo: $(INSTALLED)
	@$(BIN)/python -m zhero.demo

sim: $(INSTALLED)
	@$(BIN)/python -m zhero.sim --seeds $(SEEDS)

mutations: $(INSTALLED)
	@$(BIN)/python tests/mutations.py --seeds $(SEEDS)
	@$(BIN)/python -m tests.breakages --seeds $(SEEDS)

partitions: $(INSTALLED)
	@ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -q -s tests/partitions

chaos: $(INSTALLED)
	@$(BIN)/python -m tests.chaos --rounds $(ROUNDS)

soak: $(INSTALLED)
	@$(BIN)/python -m tests.soak --minutes $(MINUTES)

# All are run, and one that fails makes the whole fail. BENCHES="local peers" runs only those.
bench: $(INSTALLED)
	@$(BIN)/python -m bench $(BENCHES)

clean:
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The mark is made last: an install that was broken off is done again.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "zhero needs Python 3.11 or newer, and $(PYTHON) is none ($$($(PYTHON) --version 2>&1)): choose one, as in make PYTHON=python3.12" >&2; \
	  exit 1; }
	@echo "setting up $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[standard,test]'
	@touch $@
