# Everything a person does here. `make help` lists it.
SHELL := bash
PY := .venv/bin/python
BIN := .venv/bin
DEMO_ARGS ?=
CHAOS_ARGS ?=
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'

.venv/%.stamp: pyproject.toml constraints.txt
	@deploy/bootstrap.sh $*
	@touch $@

setup: .venv/dev.stamp ## the environment with everything, for working on the code

demo: .venv/sim.stamp ## forty sites, one controller, a live view (DEMO_ARGS="--duration 90s")
	@exec $(BIN)/gridpivot demo $(DEMO_ARGS)

test: .venv/dev.stamp ## the whole test suite
	$(BIN)/pytest -n 2 -m "not system" --durations=20
	$(BIN)/pytest -m system --durations=20

lint: .venv/dev.stamp ## ruff, mypy, the floors of the house, the contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(PY) deploy/check_stubs.py

proto: .venv/dev.stamp ## generate gridpivot/v1 from protos/
	PATH=$(CURDIR)/$(BIN):$$PATH $(PY) -m grpc_tools.protoc -Iprotos --python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. $$(cd protos && find gridpivot -name '*.proto' | sort)
	@touch gridpivot/v1/__init__.py

chaos: .venv/dev.stamp ## every fault against a real controller (CHAOS_ARGS="--short"); last line is one JSON object
	@$(PY) -m sim.chaos $(CHAOS_ARGS)

bench-%: .venv/dev.stamp ## bench-governor, -ingest, -metrics, -dispatch, -forecast, -regret, -asic, -nvml, -scan, -nodes, -link, -ceiling, -emerald, -demand, -kube: last line is one JSON object
	@$(PY) tests/bench/bench_$*.py

test-gpu: .venv/dev.stamp ## on a machine with an NVIDIA board: reads, limits with read-back, how long a cap and a clock lock take; puts both back
	@$(PY) tests/bench/bench_nvml.py
	@$(PY) tests/bench/bench_cap.py

clean: ## remove what was built
	rm -rf .venv build dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help setup chaos test-gpu demo test lint proto clean
.PRECIOUS: .venv/%.stamp
