# One word for everything. `make run` and `make test` set up what they need, once.
#
#   make run          benchmark this machine and print the table
#   make test         the whole test suite
#   make help         the rest

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
  "$$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
# Which TensorFlow: the GPU build where the NVIDIA driver is loaded. `make run TENSORFLOW=cpu` overrides it.
TENSORFLOW ?= $(if $(wildcard /proc/driver/nvidia/version),gpu,cpu)
CONFIG ?= configs/local.yaml
# How many ordinary hosts `make lab` brings up.
hosts ?= 4
# How many random storms `make storms` has.
storms ?= 10000

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
RUNTIME := $(VENV)/.installed-$(TENSORFLOW)
DEVELOPMENT := $(VENV)/.installed-dev-$(TENSORFLOW)
FRAMEWORKS := $(VENV)/.installed-frameworks-$(TENSORFLOW)

.PHONY: help setup setup-dev setup-frameworks system run test test-fast test-slow test-long storms test-faults faults lab lint format golden bench lock wheel clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   make /  make /p' Makefile
	@echo "  make setup-frameworks  PyTorch and JAX, for the tests of these"
	@echo "  make test-slow    what takes longer: environments, clusters that are kept, hosts over SSH"
	@echo "  make test-long    what takes longest, and is tried in a shorter form by the others"
	@echo "  make test-faults  faults that are injected on real hosts: every kind once"
	@echo "  make faults       all of them; writes the table in docs/reliability.md"
	@echo "  make storms       ten thousand storms of faults over simulated labs, half an hour; storms=500 for fewer"
	@echo "  make lab hosts=4  real hosts on this machine to try it on, as root, until Ctrl-C"
	@echo "  make lint         ruff, mypy, import-linter"
	@echo "  make format       let ruff lay out the code"
	@echo "  make golden       rewrite the expected outputs under tests/golden (review the diff)"
	@echo "  make bench        measure muster itself; writes benchmarks/RESULTS.md"
	@echo "  make lock         resolve requirements/*.txt anew"
	@echo "  make wheel        build the wheel into dist/"
	@echo "  make clean        remove what the targets above made"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "muster needs Python 3.10 to 3.13, and found none; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }

$(RUNTIME): requirements/$(TENSORFLOW).txt pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements/$(TENSORFLOW).txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(DEVELOPMENT): requirements/dev.txt $(RUNTIME)
	$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

$(FRAMEWORKS): requirements/frameworks.txt requirements/torch-cpu.txt $(DEVELOPMENT)
	$(PIP) install --quiet --require-hashes -r requirements/frameworks.txt -r requirements/torch-cpu.txt
	@touch $@

setup: $(RUNTIME)
setup-dev: $(DEVELOPMENT)
# Beside TensorFlow: PyTorch's build for CPUs, and JAX. Tests of what is not there are skipped.
setup-frameworks: $(FRAMEWORKS)

# What the lab of the tests needs of the system.
system:
	@.ci/packages

run: setup
	@$(BIN)/muster run $(CONFIG)

# Two at a time: most of these wait for something. Coverage makes Python half as fast, and the pure parts are reached
# without real processes.
test: setup-dev system
	$(BIN)/python -m pytest -m "not slow" -n 2 --cov --cov-report=term:skip-covered \
	  tests/unit tests/properties tests/documentation
	$(BIN)/python tests/pure_coverage.py
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile tests/contract tests/integration

# Each worker has a lab of its own. Apart from the others, some of which look at what their process has below it.
test-slow: setup-dev system
	$(BIN)/python -m pytest -m "slow and not long" -n 2 --dist loadfile tests/contract tests/integration
	$(BIN)/python -m pytest -m "slow and not long" -n 2 --dist loadfile tests/lab

test-long: setup-dev system
	$(BIN)/python -m pytest -m long --ignore=tests/faults

# Every kind of fault once, in its shorter form; `make faults` tries all of them, one at a time, for it tells seconds.
test-faults: setup-dev system
	$(BIN)/python -m pytest -m "not long" -n 2 --dist loadfile tests/faults

faults: setup-dev system
	$(BIN)/python docs/faults.py

test-fast: setup-dev
	$(BIN)/python -m pytest -x -q tests/unit tests/properties tests/contract

storms: setup-dev
	MUSTER_STORMS=$(storms) $(BIN)/python -m pytest -s -q tests/properties/test_storms.py

lab: setup-dev system
	@$(BIN)/python -m tests.lab --hosts $(hosts)

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: setup-dev
	MUSTER_GOLDEN=write $(BIN)/python -m pytest -q tests/unit tests/contract tests/documentation

bench: setup-dev
	$(BIN)/python benchmarks/run.py

# Exact versions with hashes, and no registry's address.
lock: setup-dev
	for kind in cpu gpu; do $(BIN)/uv pip compile --quiet --universal --no-strip-extras --python-version 3.10 --generate-hashes \
	  --no-emit-index-url --no-header --extra $$kind --output-file requirements/$$kind.txt pyproject.toml; done
	$(BIN)/uv pip compile --quiet --universal --no-strip-extras --python-version 3.10 --generate-hashes --no-emit-index-url --no-header \
	  --extra dev --constraint requirements/cpu.txt --output-file requirements/dev.txt pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --constraint requirements/cpu.txt --constraint requirements/dev.txt --output-file requirements/frameworks.txt requirements/frameworks.in
	for kind in cpu gpu; do $(BIN)/uv pip compile --quiet --universal --no-strip-extras --python-version 3.10 --generate-hashes \
	  --no-emit-index-url --no-header --constraint requirements/$$kind.txt \
	  --output-file orchestrator/reach/data/hosts-$$kind.txt requirements/hosts-$$kind.in; done

wheel: setup-dev
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean:
	rm -rf build dist *.egg-info .coverage htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis
