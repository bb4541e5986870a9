# Everything a developer or CI runs; `make` alone lists it. Bodies are one or two lines: what is
# longer lives in a file of its own.
.DEFAULT_GOAL := help
.PHONY: help setup tools fmt lint types imports check test test-unit test-kernel test-cluster \
        test-long demo bench image lock cluster-up cluster-down clean
SHELL := /bin/bash

PYTHON ?= python3
BIN    := .venv/bin
PATHS  := operator tests bench

# Parameters of the tests and the demo, all settable: make demo COOLDOWN=30 PROXY_MODE=nftables
RUNS       ?= 3
LONG_RUNS  ?= 20
NODES      ?= 3
COOLDOWN   ?= 3
PYTEST     ?= $(BIN)/pytest
CORE_COVER := --cov=operator/synsweep/core --cov-fail-under=100 --cov-report=term-missing:skip-covered

VERSION  = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' operator/synsweep/__init__.py)
IMAGE   ?= synsweep:$(VERSION)
BASE    ?= docker.io/library/python:3.11-slim-bookworm
BUILDER  = $(shell docker info >/dev/null 2>&1 && echo docker build || echo buildah bud)

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: tools .venv/ready ## the virtual environment, hash-locked, and missing Debian packages

tools:
	@PYTHON=$(PYTHON) .ci/tools

.venv/ready: requirements/dev.txt pyproject.toml operator/synsweep/__init__.py | tools
	@echo "setup: installing the locked requirements into .venv"
	@$(PYTHON) -m venv .venv && $(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . && touch $@

fmt: setup ## format the code and mend what ruff can mend
	$(BIN)/ruff format $(PATHS) && $(BIN)/ruff check --fix $(PATHS)

lint: setup ## formatting and lint, without changing anything
	$(BIN)/ruff format --check $(PATHS) && $(BIN)/ruff check $(PATHS)

types: setup ## mypy, strict, tests included
	$(BIN)/mypy

imports: setup ## the layers: who may import whom
	PYTHONPATH=operator $(BIN)/lint-imports

check: lint types imports ## all of the three above; what CI runs before the tests

test: check ## checks, unit and kernel tests: under 3 minutes on a fresh machine
	$(PYTEST) tests/unit tests/kernel $(CORE_COVER)

test-unit: setup ## unit tests; core/ at 100 % branch coverage
	$(PYTEST) tests/unit $(CORE_COVER)

test-kernel: setup ## tests on the real kernel, in private network namespaces (root)
	$(PYTEST) tests/kernel

test-cluster: setup ## tests on a real three-node cluster (root; RUNS=3, PROXY_MODE= both by default)
	@status=0; for mode in $(or $(PROXY_MODE),iptables nftables); do echo "cluster tests, kube-proxy in $$mode mode"; \
	  RUNS=$(RUNS) PROXY_MODE=$$mode $(PYTEST) tests/cluster -m cluster || status=1; done; exit $$status

test-long: setup ## kernel and cluster tests with their full repetitions and durations (RUNS=20 by LONG_RUNS=)
	SYNSWEEP_LONG=1 $(PYTEST) tests/kernel
	SYNSWEEP_LONG=1 $(MAKE) test-cluster RUNS=$(LONG_RUNS)

demo: setup ## the bug and its cure, on a real cluster on this machine (root; COOLDOWN=3, PROXY_MODE=iptables)
	@COOLDOWN=$(COOLDOWN) PROXY_MODE=$(or $(PROXY_MODE),iptables) $(BIN)/python -m tests.demo

bench: setup ## measure one sweep against conntrack(8) (root; ARGS="--entries 10000"); bench/README.md has the others
	$(BIN)/python -m bench.sweep $(ARGS)

image: ## the container image, by docker or else buildah (IMAGE=, BASE=, BUILD_FLAGS=)
	$(BUILDER) --build-arg BASE=$(BASE) --build-arg VERSION=$(VERSION) --tag $(IMAGE) $(BUILD_FLAGS) .

lock: setup ## renew the hash-locked requirements from requirements/*.in
	cd requirements && for name in build runtime dev; do ../$(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header \
	  --universal --python-version 3.11 $$name.in -o $$name.txt || exit 1; done

cluster-up: setup ## start the three-node cluster and say how to reach it (root; NODES=, PROXY_MODE=)
	@NODES=$(NODES) PROXY_MODE=$(or $(PROXY_MODE),iptables) $(BIN)/python -m tests.rig up

cluster-down: setup ## stop it and leave nothing behind
	@$(BIN)/python -m tests.rig down

clean: ## remove what the targets above made in this folder
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* *.egg-info
